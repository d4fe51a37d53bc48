"""Where the pipeline and the service meet: folders and files below the data root that both know."""

from __future__ import annotations

from typing import Final

MODELS: Final = "models"
CHAMPION_NAME: Final = "champion.json"
"""In `models/`: names the accepted version, and keeps every decision."""

PREDICTIONS: Final = "predictions"
DAYS: Final = "????-??-??"
"""Folders of the log and of kept images, one a day, as a pattern."""
IMAGE_LOG: Final = "images"
"""In `predictions/`: the kept images, `<day>/<prediction id>.<format>`."""

FEEDBACK: Final = "feedback"
LABEL_REQUEST_NAME: Final = "requested.json"
"""In `feedback/`: the predictions that people are asked to label."""
