"""Keep the images of answered predictions for labelling, for a stated number of days, when asked to.

They have a queue and a thread of their own: an image takes far longer to write than its record, and records
must not wait for it, because a killed worker loses what waits.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

from emotion_assets.core.layout import DAY_PATTERN, IMAGE_LOG

_MAX_WAITING_BYTES: Final = 100 * 2**20
_SECONDS_BETWEEN_LOOKS: Final = 3600.0
_LEAST_FREE_BYTES: Final = 2**30
_LEAST_FREE_FRACTION: Final = 0.05


@dataclass(frozen=True, slots=True)
class _Image:
    prediction_id: str
    format: str
    content: bytes


class ImageLog:
    """Writes `predictions/images/<date>/<prediction id>.<format>`.

    A disk that is nearly full costs images, nothing else: the log continues, and needs the room that is left.
    """

    def __init__(self, predictions_dir: Path, keep_days: int, count: Callable[[str, int], None]) -> None:
        """Start the writer.

        Args:
            predictions_dir: gets the folder of images when the first one comes.
            keep_days: after so many days an image is removed, also one of an earlier service.
            count: is told `image_written` or `image_lost`, and how many.
        """
        self._dir, self._keep_days, self._count = predictions_dir / IMAGE_LOG, keep_days, count
        self._queue: queue.SimpleQueue[_Image | None] = queue.SimpleQueue()
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._day = ""
        self._looked_on: date | None = None
        self._thread = threading.Thread(target=self._write_all, name="kept-images", daemon=True)
        self._thread.start()

    def append(self, prediction_id: str, form: str, content: bytes) -> None:
        """Queue an image and return at once; over 100 MiB of waiting ones, it is left out and counted."""
        with self._lock:
            has_room = self._waiting_bytes + len(content) <= _MAX_WAITING_BYTES
            if has_room:
                self._waiting_bytes += len(content)
        if has_room:
            self._queue.put(_Image(prediction_id, form, content))
        else:
            self._count("image_lost", 1)

    def close(self) -> None:
        """Write what is queued and stop."""
        self._queue.put(None)
        self._thread.join(timeout=10)

    def _write_all(self) -> None:
        while True:
            today = datetime.now(UTC).date()
            if today != self._looked_on:
                self._looked_on = today
                remove_old_images(self._dir, today, self._keep_days)
            try:
                image = self._queue.get(timeout=_SECONDS_BETWEEN_LOOKS)
            except queue.Empty:
                continue
            if image is None:
                return
            try:
                self._check_room()
                self._write(image)
            except OSError:
                # Whatever went wrong, also that somebody removed the folder: the next one begins with its folder.
                self._day = ""
                self._count("image_lost", 1)
            else:
                self._count("image_written", 1)
            with self._lock:
                self._waiting_bytes -= len(image.content)

    def _check_room(self) -> None:
        usage = shutil.disk_usage(next(place for place in (self._dir, *self._dir.parents) if place.exists()))
        if usage.free < min(_LEAST_FREE_BYTES, _LEAST_FREE_FRACTION * usage.total):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _write(self, image: _Image) -> None:
        day = datetime.now(UTC).date().isoformat()
        if day != self._day:
            (self._dir / day).mkdir(parents=True, exist_ok=True)
            self._day = day  # only now: a disk that is well again later must get its folder
        path = self._dir / day / f"{image.prediction_id}.{image.format.lower()}"
        temporary = path.with_name(f".{path.name}.tmp")
        # Whole or not at all, but not synced: after a power cut a missing image is one label less.
        try:
            temporary.write_bytes(image.content)
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def remove_old_images(images_dir: Path, today: date, keep_days: int) -> None:
    """Remove the images of days that are more than `keep_days` days before `today`."""
    for folder in images_dir.glob(DAY_PATTERN):
        with contextlib.suppress(ValueError):
            if date.fromisoformat(folder.name) < today - timedelta(days=keep_days):
                shutil.rmtree(folder, ignore_errors=True)
