"""The BentoML service: one class that mounts our routes and loads one model.

BentoML brings packaging, workers, health checks and traces. The routes are our own, because its image inputs answer
damaged images with 500 and have no size limit. This package has no `__init__.py` on purpose: as a namespace package,
the copy inside a bento takes precedence over a checkout's, wherever `bentoml serve emotion_service:latest` is started.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

import bentoml
from bentoml.images import Image
from bentoml.models import BentoModel
from pydantic import BaseModel

from emotion_assets.core.errors import EmotionError, InvalidSettingError
from emotion_assets.core.processes import die_with_parent
from emotion_assets.core.remote import is_remote
from emotion_service.app import EmotionApp
from emotion_service.model_watcher import champion_version
from emotion_service.settings import Settings


class BentoArguments(BaseModel):
    """What packing writes into the bento."""

    model_version: str = "latest"
    packages: list[str] = []
    """`name==version` of every Python package of the image."""


_logger = logging.getLogger(__name__)
_parent_pid = os.getppid()
_arguments = bentoml.use_arguments(BentoArguments)
try:
    _settings = Settings.load()
    _app = EmotionApp(_settings)
except InvalidSettingError as error:
    sys.exit(str(error))  # of an exception BentoML would say that it found no such service

# Trust X-Forwarded-For only from proxies that are named here; uvicorn would trust every local process.
os.environ.setdefault("FORWARDED_ALLOW_IPS", "")
# In a container BentoML does not restart a dead worker; without this variable it does.
os.environ.pop("BENTOML_CONTAINERIZED", None)

_python = f"{sys.version_info.major}.{sys.version_info.minor}"
# distro="none", because BentoML's default recipe would add a compiler and git.
_image = (
    Image(base_image=f"python:{_python}-slim", distro="none", lock_python_packages=False)
    .python_packages(*_arguments.packages)
    # Remove what only the build needs; a builder that writes one layer reclaims the space.
    .run("pip uninstall --yes uv; rm -rf ~/.cache; find /app/.venv -type d -name tests -prune -exec rm -rf {} +")
    # A new volume takes over the owner of the folder that it is mounted on.
    .run("mkdir -p /data && chown bentoml:bentoml /data")
)
_collector = _settings.traces_url.get_secret_value()
_tracing = (
    {"exporter_type": "otlp", "sample_rate": 1.0, "otlp": {"protocol": "http", "endpoint": _collector}}
    if _collector
    else {"excluded_urls": ".*"}  # BentoML would trace every request for no exporter
)


def _configure_logging() -> None:
    """Undo what BentoML does to the loggers of other packages: it disables them, and keeps new ones at WARNING."""
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("emotion_") and isinstance(logger, logging.Logger):
            logger.disabled = False
    logging.getLogger("emotion_service").setLevel(logging.INFO)
    # A line of the access log is JSON and nothing else.
    access = logging.getLogger("emotion_service.access")
    access.addHandler(logging.StreamHandler())
    access.propagate = False


@bentoml.service(
    name="emotion_service",
    image=_image,
    envs=[{"name": "BENTOML_DO_NOT_TRACK", "value": "True"}],
    workers=_settings.workers,
    # Our own limits apply first, with our own error body.
    traffic={"timeout": int(_settings.timeout_seconds) + 30},
    logging={"access": {"enabled": False}},
    # BentoML makes every requested path a label of its own; ours come from a fixed set.
    metrics={"enabled": False},
    tracing=_tracing,
)
@bentoml.asgi_app(_app.routes(), path="/")
class EmotionService:
    """Predicts which emotion a face shows."""

    packed_model = BentoModel(f"emotion_cnn:{_arguments.model_version}")

    def __init__(self) -> None:
        """Load the champion of the data root if it is followed and there is one, else the packed model."""
        _configure_logging()
        if bentoml.server_context.worker_index is not None:
            # Otherwise the workers of a killed server would keep its port.
            die_with_parent(_parent_pid, by=signal.SIGTERM)
        root = os.environ.get("EMOTION_DATA_DIR", "")
        if not is_remote(root) and not Path(root).is_absolute():
            # BentoML has changed into the bento's folder by now.
            _logger.warning("EMOTION_DATA_DIR is not absolute: predictions are logged below %s", _settings.data_dir)
        if not _settings.token.get_secret_value() and bentoml.server_context.worker_index in {None, 1}:
            _logger.warning("No EMOTION_TOKEN is set: whoever reaches this port can predict and label.")
        _app.follow_champion()
        if _app.model is None:
            self._load_packed()

    def _load_packed(self) -> None:
        # An exception here would make BentoML start this worker again, endlessly, while connections wait.
        try:
            _app.load(Path(self.packed_model.path))
            _logger.warning("Serving model %s, which was packed into the bento: %s", _app.version, self._why_packed())
        except (EmotionError, OSError) as error:
            _logger.error(  # noqa: TRY400 -- the traceback adds nothing
                "No model can be served: %s Until another one is accepted in %s, /readyz answers 503.",
                error,
                _settings.paths.models,
            )

    @staticmethod
    def _why_packed() -> str:
        if not _settings.follow_champion:
            return "EMOTION_FOLLOW_CHAMPION is off"
        models_dir = _settings.paths.models
        champion = champion_version(models_dir)
        return f"champion {champion} cannot be served" if champion else f"no model was accepted in {models_dir}"

    @property
    def model_version(self) -> str:
        """The version of the model that is served."""
        return _app.version

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def close(self) -> None:
        """Write the rest of the prediction log."""
        _app.close()

    def __is_ready__(self) -> bool:
        """Tell `/readyz` whether a model is loaded."""
        return _app.model is not None
