"""The queue for labelling: the predictions that the drift report requested labels for, without those that have one.

It shows stored images of people, so it is open only to clients with the service's token.
"""

from __future__ import annotations

import json
import re
from typing import Final

from emotion_assets.core.files import list_files
from emotion_assets.core.layout import DAY_PATTERN, LABEL_REQUEST_NAME, DataPaths
from emotion_service.schemas import LabelRequest

_ID: Final = re.compile(r"[0-9a-f]{40}")
_MEDIA_TYPES: Final = {".jpeg": "image/jpeg", ".png": "image/png", ".gif": "image/gif", ".webp": "image/webp"}


class LabelQueue:
    """Reads the request that `drift_report` leaves beside the labels."""

    def __init__(self, paths: DataPaths) -> None:
        """Read the folders of `paths`, which may be missing."""
        self._feedback_dir, self._images_dir = paths.feedback, paths.image_log

    def pending(self) -> list[LabelRequest]:
        """Return the predictions that still need a label, the most informative first."""
        try:
            rows = json.loads((self._feedback_dir / LABEL_REQUEST_NAME).read_text())["predictions"]
            stored = {path.stem for path in list_files(self._images_dir, DAY_PATTERN, "*.*")}
            requests = [LabelRequest(**row, has_image=row["prediction_id"] in stored) for row in rows]
        except (OSError, ValueError, KeyError, TypeError):
            return []
        return [request for request in requests if not self._has_label(request.prediction_id)]

    def image(self, prediction_id: str) -> tuple[bytes, str] | None:
        """Return the stored image of a prediction and its media type, or None."""
        if not _ID.fullmatch(prediction_id):
            return None
        for path in list_files(self._images_dir, DAY_PATTERN, f"{prediction_id}.*"):
            try:
                return path.read_bytes(), _MEDIA_TYPES.get(path.suffix, "application/octet-stream")
            except OSError:
                return None  # its retention just ended, or it is not readable
        return None

    def _has_label(self, prediction_id: str) -> bool:
        return (self._feedback_dir / prediction_id[:2] / f"{prediction_id}.json").exists()
