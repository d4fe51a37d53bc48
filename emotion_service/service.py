"""The BentoML service: one class that mounts our routes and holds one model.

BentoML brings packaging, workers, health and traces. The routes are our own, because its image inputs
answer damaged images with 500 and have no size limit.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import bentoml
from bentoml.images import Image
from bentoml.models import BentoModel

from emotion_assets.core.files import hold
from emotion_service.app import EmotionApp
from emotion_service.packages import pinned_packages
from emotion_service.settings import Settings

# Packing writes the exact version beside this file; BentoML itself would take the newest model at every start.
# In a checkout a bento's service is imported from there, though BentoML has changed into the bento's own folder.
_PINNED_VERSIONS = (Path("emotion_service/MODEL_VERSION").absolute(), Path(__file__).with_name("MODEL_VERSION"))
_model_version = next((path.read_text().strip() for path in _PINNED_VERSIONS if path.exists()), "latest")

_logger = logging.getLogger("emotion_service")
_settings = Settings.from_environment()
_app = EmotionApp(_settings)

# Only a proxy that is named here may say for whom it asks; uvicorn would believe everybody on this machine.
os.environ.setdefault("FORWARDED_ALLOW_IPS", "")

# In a container BentoML leaves a dead worker dead, and the container continues without it. Ours comes back there, too.
os.environ.pop("BENTOML_CONTAINERIZED", None)

_python = f"{sys.version_info.major}.{sys.version_info.minor}"
# `base_image` with a distro that BentoML has no recipe for: its default would add a compiler and git.
_image = (
    Image(base_image=f"python:{_python}-slim", distro="none", lock_python_packages=False)
    .python_packages(*pinned_packages())
    # What only the build needs; a builder that writes one layer gives the space back.
    .run("pip uninstall --yes uv; rm -rf ~/.cache; find /app/.venv -type d -name tests -prune -exec rm -rf {} +")
    # A new volume takes over whose folder it lies on; without one it would be root's, and the log could not be written.
    .run("mkdir -p /data && chown bentoml:bentoml /data")
)

_tracing = (
    {"exporter_type": "otlp", "sample_rate": 1.0, "otlp": {"protocol": "http", "endpoint": _settings.traces_url}}
    if _settings.traces_url
    # BentoML would measure every request for an exporter that is not there.
    else {"excluded_urls": ".*"}
)


@bentoml.service(
    name="emotion_service",
    image=_image,
    workers=_settings.num_workers,
    # Our own limits answer first, with our own error body.
    traffic={"timeout": int(_settings.timeout_seconds) + 30},
    logging={"access": {"enabled": False}},
    # BentoML makes every path that a scanner tries a label of its own; ours come from a fixed set.
    metrics={"enabled": False},
    tracing=_tracing,
)
@bentoml.asgi_app(_app.routes(), path="/")
class EmotionService:
    """Answers which emotion a face shows."""

    model_ref = BentoModel(f"emotion_cnn:{_model_version}")

    def __init__(self) -> None:
        """Load the model that this bento was built with (from a checkout, the latest packed one), and follow."""
        if not Path(os.environ.get("EMOTION_DATA_DIR", "")).is_absolute():
            # BentoML has changed into the bento's own folder by now, where nobody looks for a log.
            _logger.warning("EMOTION_DATA_DIR is no absolute path: predictions are logged below %s", _settings.data_dir)
        # BentoML has changed into the bento's own folder: a worker that is started again needs it.
        hold(Path.cwd().parent / "bento.yaml")
        _app.load(Path(self.model_ref.path))
        _app.follow_champion()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def close(self) -> None:
        """Write the rest of the prediction log."""
        _app.close()

    def __is_ready__(self) -> bool:
        """Tell `/readyz` whether a model answers."""
        return _app.model is not None
