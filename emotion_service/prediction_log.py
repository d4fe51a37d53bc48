"""One record for every answered prediction, written off the request path; the picture too, if it is to be kept.

Each worker appends JSON lines to its own segment, a new one every hour, so writers never meet. A record
that finds the queue full or the disk unwritable is counted as lost; the answer is never held up.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final

from emotion_assets.core.files import write_atomically

PICTURES_NAME: Final = "pictures"

_QUEUE_RECORDS: Final = 10_000
_MAX_QUEUED_BYTES: Final = 200 * 2**20
_STOP: Final = object()


@dataclass(frozen=True, slots=True)
class Entry:
    """A JSON-ready record, and the bytes of the picture where pictures are kept."""

    record: dict[str, Any]
    picture: bytes | None = None
    format: str = ""


class PredictionLog:
    """A queue, a thread that empties it into `predictions/<date>/<start>-<host>-<pid>.jsonl`, and two counters.

    Pictures go to `predictions/pictures/<date>/<prediction id>.<format>` before the record that they belong to.
    """

    def __init__(
        self,
        predictions_dir: Path,
        *,
        keep_days: int = 0,
        count: Callable[[str, int], None] = lambda _, __: None,
    ) -> None:
        """Start the writer; folders are made when the first record comes.

        Args:
            predictions_dir: gets a folder for each day.
            keep_days: after so many days a kept picture is removed.
            count: is told `written` or `lost`, and how many records.
        """
        self._dir, self._keep_days, self._count = predictions_dir, keep_days, count
        self._queue: queue.Queue[Any] = queue.Queue(_QUEUE_RECORDS)
        self._queued_bytes = 0
        self._lock = threading.Lock()
        self._hour = ""
        self._file: BinaryIO | None = None
        self.num_written = 0
        self.num_lost = 0
        self._thread = threading.Thread(target=self._write_all, name="prediction-log", daemon=True)
        self._thread.start()

    def append(self, record: dict[str, Any], picture: bytes | None = None, form: str = "") -> None:
        """Queue a record; return at once. A picture that finds too many bytes waiting is left out, not the record."""
        size = len(picture or b"")
        with self._lock:
            if self._queued_bytes + size > _MAX_QUEUED_BYTES:
                picture, size = None, 0
            self._queued_bytes += size
        try:
            self._queue.put_nowait(Entry(record, picture, form))
        except queue.Full:
            with self._lock:
                self._queued_bytes -= size
            self._note_lost(1)

    def close(self) -> None:
        """Write what is queued and stop."""
        self._queue.put(_STOP)
        self._thread.join(timeout=10)

    def _write_all(self) -> None:
        while True:
            batch = [self._queue.get()]
            while len(batch) < 256 and not self._queue.empty():
                batch.append(self._queue.get())
            entries: list[Entry] = [entry for entry in batch if entry is not _STOP]
            if entries:
                self._write(entries)
            if len(entries) < len(batch):
                if self._file:
                    self._file.close()
                return

    def _write(self, entries: list[Entry]) -> None:
        for entry in entries:
            if entry.picture is not None:
                self._keep(entry)
        lines = b"".join(json.dumps(entry.record, separators=(",", ":")).encode() + b"\n" for entry in entries)
        try:
            is_whole = self._segment().write(lines) == len(lines)
        except OSError:
            is_whole = False
        if is_whole:
            self.num_written += len(entries)
            self._count("written", len(entries))
        else:
            # Disk full or read-only: these records are lost, and the next ones get a fresh segment.
            self._note_lost(len(entries))
            self._file, self._hour = None, ""

    def _note_lost(self, number: int) -> None:
        self.num_lost += number
        self._count("lost", number)

    def _keep(self, entry: Entry) -> None:
        assert entry.picture is not None
        with self._lock:
            self._queued_bytes -= len(entry.picture)
        day = datetime.now(UTC).date().isoformat()
        name = f"{entry.record['prediction_id']}.{entry.format.lower()}"
        # A full disk costs the picture, never the record.
        with contextlib.suppress(OSError):
            write_atomically(self._dir / PICTURES_NAME / day / name, entry.picture)

    def _segment(self) -> BinaryIO:
        now = datetime.now(UTC)
        hour = now.strftime("%Y%m%dT%H")
        if self._file is None or hour != self._hour:
            if self._file:
                self._file.close()
            name = f"{now:%Y%m%dT%H%M%S%f}-{socket.gethostname()}-{os.getpid()}.jsonl"
            path = self._dir / f"{now:%Y-%m-%d}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: a line is with the operating system as soon as it is written.
            self._file, self._hour = path.open("ab", buffering=0), hour
            remove_old_pictures(self._dir, now.date(), self._keep_days)
        return self._file


def remove_old_pictures(predictions_dir: Path, today: date, keep_days: int) -> None:
    """Remove the pictures of days that are more than `keep_days` days ago."""
    for folder in (predictions_dir / PICTURES_NAME).glob("????-??-??"):
        with contextlib.suppress(ValueError):
            if date.fromisoformat(folder.name) < today - timedelta(days=keep_days):
                shutil.rmtree(folder, ignore_errors=True)
