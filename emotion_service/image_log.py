"""Store the images of predictions for labelling, for a limited number of days, if configured.

Images have a queue and a thread of their own: one takes far longer to write than a record of the prediction log, and
records must not wait, because a killed worker loses what is queued.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import shutil
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

from emotion_assets.core.files import atomic_file
from emotion_assets.core.layout import DAY_PATTERN
from emotion_service.storage import Storage

_MAX_QUEUED_BYTES: Final = 100 * 2**20
_CLEANUP_SECONDS: Final = 3600.0
_MIN_FREE_BYTES: Final = 2**30
_MIN_FREE_FRACTION: Final = 0.05


class ImageLog:
    """Writes `<images_dir>/<date>/<prediction id>.<format>`; on a nearly full disk, images are dropped."""

    def __init__(
        self,
        images_dir: Path,
        retention_days: int,
        count: Callable[[str, int], None],
        storage: Storage | None = None,
    ) -> None:
        """Start the writer.

        Args:
            images_dir: created with the first image.
            retention_days: an image is deleted after so many days, also one of an earlier service.
            count: called with `image_written` or `image_lost`, and how many.
            storage: gets the images as objects `predictions/images/…`, instead of the folder; old ones are removed
                there by a lifecycle rule of the bucket.
        """
        self._dir, self._retention_days, self._count, self._storage = images_dir, retention_days, count, storage
        self._queue: queue.SimpleQueue[tuple[str, bytes] | None] = queue.SimpleQueue()
        self._queued_bytes = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="image-log", daemon=True)
        self._thread.start()

    def append(self, prediction_id: str, image_format: str, content: bytes) -> None:
        """Queue an image and return at once; drop and count it if 100 MiB are queued."""
        with self._lock:
            is_queued = self._queued_bytes + len(content) <= _MAX_QUEUED_BYTES
            if is_queued:
                self._queued_bytes += len(content)
        if is_queued:
            self._queue.put((f"{datetime.now(UTC):%Y-%m-%d}/{prediction_id}.{image_format.lower()}", content))
        else:
            self._count("image_lost", 1)

    def close(self) -> None:
        """Write what is queued and stop."""
        self._queue.put(None)
        self._thread.join(timeout=10)

    def _run(self) -> None:
        cleaned_on = None
        while True:
            today = datetime.now(UTC).date()
            if today != cleaned_on:
                cleaned_on = today
                remove_old_images(self._dir, today, self._retention_days)
            try:
                queued = self._queue.get(timeout=_CLEANUP_SECONDS)
            except queue.Empty:
                continue
            if queued is None:
                return
            name, content = queued
            try:
                if self._storage:
                    self._storage.create(f"predictions/images/{name}", content)
                else:
                    self._check_free_space()
                    with atomic_file(self._dir / name, is_synced=False) as file:
                        file.write(content)
            except OSError:
                self._count("image_lost", 1)
            else:
                self._count("image_written", 1)
            with self._lock:
                self._queued_bytes -= len(content)

    def _check_free_space(self) -> None:
        usage = shutil.disk_usage(next(path for path in (self._dir, *self._dir.parents) if path.exists()))
        if usage.free < min(_MIN_FREE_BYTES, _MIN_FREE_FRACTION * usage.total):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def remove_old_images(images_dir: Path, today: date, retention_days: int) -> None:
    """Remove the images of days that are more than `retention_days` days before `today`."""
    for folder in images_dir.glob(DAY_PATTERN):
        with contextlib.suppress(ValueError):
            if date.fromisoformat(folder.name) < today - timedelta(days=retention_days):
                shutil.rmtree(folder, ignore_errors=True)
