"""The queue for labelling: the predictions that the drift report requested labels for, without those that have one.

It shows stored images of people, so it is open only to clients with the service's token.
"""

from __future__ import annotations

import json
import re
from typing import Final

from emotion_assets.core.layout import LABEL_REQUEST_NAME
from emotion_service.feedback import label_key
from emotion_service.schemas import LabelRequest
from emotion_service.storage import Storage

_IMAGES: Final = "predictions/images"
_ID: Final = re.compile(r"[0-9a-f]{40}")
_MEDIA_TYPES: Final = {f".{name}": f"image/{name}" for name in ("jpeg", "png", "gif", "webp", "bmp", "tiff")}


class LabelQueue:
    """Reads the request that `drift_report` leaves beside the labels."""

    def __init__(self, storage: Storage) -> None:
        """Read `feedback/` and `predictions/images/` of a data root, which may be missing."""
        self._storage = storage
        self._keys: dict[str, str] = {}
        """Of the stored images by prediction: listing months of them takes object storage many seconds."""

    def pending(self) -> list[LabelRequest]:
        """Return the predictions that still need a label, in the requested order."""
        try:
            rows = json.loads(self._storage.read(f"feedback/{LABEL_REQUEST_NAME}"))["predictions"]
            self._list_images()
            requests = [LabelRequest(**row, has_image=row["prediction_id"] in self._keys) for row in rows]
            return [each for each in requests if not self._storage.exists(label_key(each.prediction_id))]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def image(self, prediction_id: str) -> tuple[bytes, str] | None:
        """Return the stored image of a prediction and its media type, or None."""
        if not _ID.fullmatch(prediction_id):
            return None
        try:
            if prediction_id not in self._keys:
                self._list_images()  # stored by another worker
            key = self._keys.get(prediction_id)
            if key is None:
                return None
            return self._storage.read(key), _MEDIA_TYPES.get(key[key.rfind(".") :], "application/octet-stream")
        except OSError:
            return None  # its retention just ended, or it is not readable

    def _list_images(self) -> None:
        self._keys = {key.rpartition("/")[2].partition(".")[0]: key for key in self._storage.keys(_IMAGES)}
