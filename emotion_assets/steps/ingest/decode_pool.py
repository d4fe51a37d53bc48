"""Read and decode batches of files, in worker processes once there are many."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future
from typing import Final

from loky import BrokenProcessPool, ProcessPoolExecutor

from emotion_assets.core.processes import die_with_parent
from emotion_assets.steps.ingest.decode import ReadResult, read_files
from emotion_assets.steps.ingest.scan import SourceFile

PARALLEL_FROM_FILES: Final = 1000
"""Starting worker processes pays off from about this many new files."""

Batch = tuple[SourceFile, ...]

_logger = logging.getLogger(__name__)


class DecodePool:
    """Decode files of one `raw/` that the store at `store_path` does not know."""

    def __init__(self, raw_dir: str, store_path: str, num_workers: int) -> None:
        self._folders, self._num_workers = (raw_dir, store_path), num_workers
        self._num_files = 0
        self._executor: ProcessPoolExecutor | None = None

    def read(self, batches: Iterable[Batch]) -> Generator[tuple[Batch, list[ReadResult]]]:
        """Yield each batch with the result of `read_files`, in order; at most two batches per worker are in flight.

        Closing the generator ends the worker processes at once.
        """
        in_flight: deque[tuple[Batch, Future[list[ReadResult]] | None]] = deque()
        try:
            for batch in batches:
                in_flight.append((batch, self._submit(batch)))
                if len(in_flight) > 2 * self._num_workers:
                    yield self._finish(*in_flight.popleft())
            while in_flight:
                yield self._finish(*in_flight.popleft())
        finally:
            if self._executor:
                self._executor.shutdown(kill_workers=True)

    def _submit(self, batch: Batch) -> Future[list[ReadResult]] | None:
        self._num_files += len(batch)
        if self._num_workers == 1 or self._num_files < PARALLEL_FROM_FILES:
            return None
        if self._executor is None:
            # Unlike the standard pools, loky does not import the parent's main module in every worker, which takes
            # seconds under Dagster.
            self._executor = ProcessPoolExecutor(
                self._num_workers, initializer=die_with_parent, initargs=(os.getpid(),), env={"OMP_NUM_THREADS": "1"}
            )
        try:
            future: Future[list[ReadResult]] = self._executor.submit(read_files, *self._folders, batch)
        except BrokenProcessPool:
            return None
        return future

    def _finish(self, batch: Batch, future: Future[list[ReadResult]] | None) -> tuple[Batch, list[ReadResult]]:
        try:
            if future:
                return batch, future.result()
        except BrokenProcessPool:
            if self._num_workers > 1:
                _logger.warning("A worker process died (out of memory?). Decoding continues in this process.")
            self._num_workers = 1
        return batch, read_files(*self._folders, batch)
