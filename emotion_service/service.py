"""The BentoML service: one class that mounts our routes and holds one model.

BentoML brings packaging, workers, health and metrics. The routes are our own, because its image inputs
answer damaged pictures with 500 and have no size limit.
"""

from __future__ import annotations

from pathlib import Path

import bentoml
from bentoml.images import Image
from bentoml.models import BentoModel

from emotion_service.app import EmotionApp
from emotion_service.packages import pinned_packages
from emotion_service.settings import Settings

_settings = Settings.from_environment()
_app = EmotionApp(_settings)

# `base_image` with a distro that BentoML has no recipe for: its default would add a compiler and git.
_image = Image(base_image="python:3.11-slim", distro="none", lock_python_packages=False).python_packages(
    *pinned_packages()
)


@bentoml.service(
    name="emotion_service",
    image=_image,
    workers=_settings.num_workers,
    # Our own limits answer first, with our own error body.
    traffic={"timeout": int(_settings.timeout_seconds) + 30},
    logging={"access": {"enabled": False}},
)
@bentoml.asgi_app(_app.routes(), path="/")
class EmotionService:
    """Answers which emotion a face shows."""

    model_ref = BentoModel("emotion_cnn:latest")

    def __init__(self) -> None:
        """Load the model that this bento was built with."""
        _app.load(Path(self.model_ref.path))

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def close(self) -> None:
        """Write the rest of the prediction log."""
        _app.close()

    def __is_ready__(self) -> bool:
        """Tell `/readyz` whether a model answers."""
        return _app.model is not None
