"""The prediction log: one record for each prediction, written outside the request path.

Each worker appends JSON lines to a segment of its own and starts a new one every hour. A record that finds the queue
full or the disk unwritable is dropped and counted; no request waits for it. A killed worker loses what is queued:
about ten milliseconds of records, more while the disk is slow. In object storage a segment is an object that is
written once, each second.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from emotion_service.storage import Storage

MAX_QUEUED: Final = 10_000
BATCH_SECONDS: Final = 0.01
"""Minimum time between two writes: waking up for each record costs more than writing it."""
OBJECT_SECONDS: Final = 1.0
"""The same for object storage, where each write is an object; a killed worker loses as much."""
_BATCH_RECORDS: Final = 256
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))
_STOP: Final = object()


class PredictionLog:
    """A queue, and a thread that writes it to `<predictions_dir>/<date>/<start>-<host>-<pid>.jsonl`."""

    def __init__(
        self, predictions_dir: Path, count: Callable[[str, int], None], storage: Storage | None = None
    ) -> None:
        """Start the writer.

        Args:
            predictions_dir: created with the first record; gets a folder for each day.
            count: called with `written` or `lost`, and how many records.
            storage: gets a segment each second as an object `predictions/…`, instead of the folder.
        """
        self._dir, self._count, self._storage = predictions_dir, count, storage
        self._batch_seconds = OBJECT_SECONDS if storage else BATCH_SECONDS
        self._batch_records = MAX_QUEUED if storage else _BATCH_RECORDS
        self._queue: queue.Queue[Any] = queue.Queue(MAX_QUEUED)
        self._hour = ""
        self._file: BinaryIO | None = None
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def append(self, record: dict[str, Any]) -> None:
        """Queue a record that can be encoded as JSON; return at once."""
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._count("lost", 1)

    def close(self) -> None:
        """Write what is queued and stop."""
        self._queue.put(_STOP)
        self._thread.join(timeout=10)

    def _run(self) -> None:
        next_write = 0.0
        while True:
            batch = [self._queue.get()]
            time.sleep(max(0.0, next_write - time.monotonic()))
            next_write = time.monotonic() + self._batch_seconds
            while len(batch) < self._batch_records and not self._queue.empty():
                batch.append(self._queue.get())
            records = [record for record in batch if record is not _STOP]
            if records:
                self._write(records)
            if len(records) < len(batch):
                if self._file:
                    self._file.close()
                return

    def _write(self, records: list[dict[str, Any]]) -> None:
        lines = "".join(_ENCODER.encode(record) + "\n" for record in records).encode()
        try:
            if self._storage:
                self._storage.create(f"predictions/{_new_name(datetime.now(UTC))}", lines)
                is_written = True
            else:
                is_written = self._segment().write(lines) == len(lines)
        except OSError:
            is_written = False
        if not is_written:
            self._drop_segment()  # the next records get a new one
        self._count("written" if is_written else "lost", len(records))

    def _segment(self) -> BinaryIO:
        now = datetime.now(UTC)
        hour = now.strftime("%Y%m%dT%H")
        if self._file and (hour != self._hour or not os.fstat(self._file.fileno()).st_nlink):
            self._drop_segment()  # its hour is over, or somebody deleted it
        if self._file is None:
            path = self._dir / _new_name(now)
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered, so that the operating system has a line as soon as it is written.
            self._file, self._hour = path.open("ab", buffering=0), hour
        return self._file

    def _drop_segment(self) -> None:
        if self._file:
            # A full disk still creates files: without this, each attempt would leave an empty one.
            with contextlib.suppress(OSError):
                if not os.fstat(self._file.fileno()).st_size:
                    Path(self._file.name).unlink(missing_ok=True)
            self._file.close()
        self._file = None


def _new_name(now: datetime) -> str:
    return f"{now:%Y-%m-%d}/{now:%Y%m%dT%H%M%S%f}-{socket.gethostname()}-{os.getpid()}.jsonl"
