"""One record for every answered prediction, written off the request path.

Each worker appends JSON lines to its own segment, a new one every hour, so writers never meet. A record
that finds the queue full or the disk unwritable is counted as lost; the answer is never held up. A worker
that is killed loses what waits: about the last hundredth of a second's, more while the disk is slow.
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

_QUEUE_RECORDS: Final = 10_000
_GATHER_SECONDS: Final = 0.01
"""The writer writes so often at most, and at once after a pause. Waking up for each record of many costs more than
writing it."""
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))
_STOP: Final = object()


class PredictionLog:
    """A queue, a thread that empties it into `predictions/<date>/<start>-<host>-<pid>.jsonl`, and two counters."""

    def __init__(self, predictions_dir: Path, count: Callable[[str, int], None] = lambda _, __: None) -> None:
        """Start the writer; folders are made when the first record comes.

        Args:
            predictions_dir: gets a folder for each day.
            count: is told `written` or `lost`, and how many records.
        """
        self._dir, self._count = predictions_dir, count
        self._queue: queue.Queue[Any] = queue.Queue(_QUEUE_RECORDS)
        self._hour = ""
        self._file: BinaryIO | None = None
        self.num_written = 0
        self.num_lost = 0
        self._thread = threading.Thread(target=self._write_all, name="prediction-log", daemon=True)
        self._thread.start()

    def append(self, record: dict[str, Any]) -> None:
        """Queue a JSON-ready record; return at once."""
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._note_lost(1)

    def close(self) -> None:
        """Write what is queued and stop."""
        self._queue.put(_STOP)
        self._thread.join(timeout=10)

    def _write_all(self) -> None:
        not_before = 0.0
        while True:
            batch = [self._queue.get()]
            time.sleep(max(0.0, not_before - time.monotonic()))
            not_before = time.monotonic() + _GATHER_SECONDS
            while len(batch) < 256 and not self._queue.empty():
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
            is_readable = self._segment().write(lines) == len(lines)
        except OSError:
            is_readable = False
        if is_readable:
            self.num_written += len(records)
            self._count("written", len(records))
        else:
            # Disk full or read-only: these records are lost, and the next ones get a fresh segment.
            self._note_lost(len(records))
            self._give_up_segment()

    def _give_up_segment(self) -> None:
        if self._file:
            # A full disk still takes names: an empty file for each attempt would soon be thousands.
            with contextlib.suppress(OSError):
                if not os.fstat(self._file.fileno()).st_size:
                    Path(self._file.name).unlink(missing_ok=True)
            self._file.close()
        self._file, self._hour = None, ""

    def _note_lost(self, number: int) -> None:
        self.num_lost += number
        self._count("lost", number)

    def _segment(self) -> BinaryIO:
        now = datetime.now(UTC)
        hour = now.strftime("%Y%m%dT%H")
        if self._file and not os.fstat(self._file.fileno()).st_nlink:
            self._give_up_segment()  # somebody removed it; what is written to it now would be nowhere
        if self._file is None or hour != self._hour:
            if self._file:
                self._file.close()
            name = f"{now:%Y%m%dT%H%M%S%f}-{socket.gethostname()}-{os.getpid()}.jsonl"
            path = self._dir / f"{now:%Y-%m-%d}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: a line is with the operating system as soon as it is written.
            self._file, self._hour = path.open("ab", buffering=0), hour
        return self._file
