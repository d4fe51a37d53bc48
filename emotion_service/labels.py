"""The queue "please label these": what the drift report asked for, less what has a label by now.

It shows kept images, which are of people, so it is open only to those who have the service's token.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

from emotion_assets.core.files import listed
from emotion_assets.core.layout import DAY_PATTERN, FEEDBACK, IMAGE_LOG, LABEL_REQUEST_NAME, PREDICTIONS

_ID: Final = re.compile(r"[0-9a-f]{40}")
_MEDIA_TYPES: Final = {".jpeg": "image/jpeg", ".png": "image/png", ".gif": "image/gif", ".webp": "image/webp"}


class LabelQueue:
    """Reads the request that `drift_report` left beside the labels."""

    def __init__(self, data_dir: Path) -> None:
        """Look below `data_dir`; nothing has to be there yet."""
        self._feedback_dir = data_dir / FEEDBACK
        self._images_dir = data_dir / PREDICTIONS / IMAGE_LOG

    def waiting(self) -> list[dict[str, Any]]:
        """Return the predictions that still want a label, the most telling first, as `LabelRequest`s."""
        try:
            requested = json.loads((self._feedback_dir / LABEL_REQUEST_NAME).read_text())["predictions"]
            kept = {path.stem for path in listed(self._images_dir, DAY_PATTERN, "*.*")}
            return [
                {
                    "prediction_id": row["prediction_id"],
                    "emotion": row["emotion"],
                    "confidence": row["confidence"],
                    "reason": row["reason"],
                    "has_image": row["prediction_id"] in kept,
                }
                for row in requested
                if not (self._feedback_dir / row["prediction_id"][:2] / f"{row['prediction_id']}.json").exists()
            ]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def image(self, prediction_id: str) -> tuple[bytes, str] | None:
        """Return the kept image of a prediction and its media type, or None."""
        if not _ID.fullmatch(prediction_id):
            return None
        for path in listed(self._images_dir, DAY_PATTERN, f"{prediction_id}.*"):
            try:
                return path.read_bytes(), _MEDIA_TYPES.get(path.suffix, "application/octet-stream")
            except OSError:
                return None  # its days were over in this moment, or it belongs to somebody else
        return None
