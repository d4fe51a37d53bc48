"""Take stock of `raw/`: read what is new, remember what was read, report everything that is odd.

The pipeline only ever reads here. Bytes are read once; what is hashed is what is decoded. A file that is
known by path, size, time and inode is not opened again; a content that is known by its hash is not
decoded again. Links are not followed, so nothing outside the tree is read.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.files import locked, remove_temporary_files
from emotion_assets.core.images import IMAGE_SIZE_PX
from emotion_assets.steps.ingest.decode_pool import (
    FAILED_READ,
    OUT_OF_MEMORY,
    UNREADABLE,
    DecodedContent,
    DecodePool,
    Read,
    SkippedFile,
    SourceFile,
    WorkerDiedError,
    read_files,
)
from emotion_assets.steps.ingest.export import TABLE_NAME, export_catalogue, is_readable
from emotion_assets.steps.ingest.near_duplicates import compare_new_contents, compute_descriptors
from emotion_assets.steps.ingest.scan import walk
from emotion_assets.steps.ingest.store import Store

LOCK_NAME: Final = ".lock"
STORE_NAME: Final = "images.sqlite"

_BATCH_FILES: Final = 128
_LOOKED_AT_ONCE: Final = 500
# Starting worker processes pays off from about this many new files.
_PARALLEL_FROM_FILES: Final = 1000


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What one walk over `raw/` found, in numbers of files (and seconds)."""

    num_files: int
    num_new: int
    num_cached: int
    num_removed: int
    num_decoded: int
    num_to_retry: int
    """Of what could not be read, what the next run may read though nothing in the folder changes."""
    seconds: float
    fingerprint: str
    """Changes with the accepted images and their labels, not with names, order or times."""


def ingest_images(
    raw_dir: Path,
    catalogue_dir: Path,
    *,
    num_workers: int | None = None,
    splits: Mapping[str, str] | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> IngestReport:
    """Bring the catalogue in `catalogue_dir` up to date with the files under `raw_dir`.

    Args:
        raw_dir: one folder for each emotion, images at any depth below.
        catalogue_dir: gets `images.sqlite` (the store) and `catalogue.parquet` (one row a file).
        num_workers: processes that decode; one for each core by default.
        splits: the splits given so far, by content hash, for the table.
        log: is told now and then how far it is.

    Raises:
        UnusableDataError: `raw_dir` does not exist.
    """
    if not raw_dir.is_dir():
        raise UnusableDataError(
            f"There is no folder {raw_dir}. Put images into {raw_dir}/<Emotion>/ "
            f"({', '.join(EMOTIONS)}), or draw demo faces with `make demo`."
        )
    started = time.monotonic()
    with locked(catalogue_dir / LOCK_NAME), Store(catalogue_dir / STORE_NAME) as store:
        remove_temporary_files(catalogue_dir)
        ingest = _Ingest(raw_dir, catalogue_dir / STORE_NAME, store, num_workers or os.cpu_count() or 1, log)
        ingest.run()
        unseen: list[bytes] = []
        num_removed = store.drop_missing(_paths(raw_dir, unseen), unseen) if store.has_missing_files() else 0
        log("Comparing new images with all others")
        compare_new_contents(store)
        if not store.is_published() or not is_readable(catalogue_dir / TABLE_NAME):
            store.sync()
            export_catalogue(store, catalogue_dir, splits or {})
            store.mark_published(_fingerprint(store))
        fingerprint = store.published_fingerprint()
    return IngestReport(
        num_files=ingest.num_new + ingest.num_cached,
        num_new=ingest.num_new,
        num_cached=ingest.num_cached,
        num_removed=num_removed,
        num_decoded=ingest.num_decoded,
        num_to_retry=ingest.num_to_retry,
        seconds=time.monotonic() - started,
        fingerprint=fingerprint,
    )


def _paths(raw_dir: Path, unseen: list[bytes]) -> Iterator[list[bytes]]:
    """Look once more which files there are, and note folders that cannot be read; only needed when some have gone."""
    for entries in _batched(walk(raw_dir), _LOOKED_AT_ONCE):
        yield [entry.path for entry in entries if isinstance(entry, SourceFile)]
        unseen += [entry[0] for entry in entries if entry[1] in (UNREADABLE, FAILED_READ)]


def _fingerprint(store: Store) -> str:
    digest = hashlib.sha256()
    for _, content_hash, label, checksum in store.labelled_contents():
        digest.update(f"{content_hash} {label} {checksum}\n".encode())
    return digest.hexdigest()


class _Ingest:
    """One walk: counts what it meets, keeps at most a few batches in flight."""

    def __init__(
        self, raw_dir: Path, store_path: Path, store: Store, num_workers: int, log: Callable[[str], None]
    ) -> None:
        self.raw_dir, self.store, self.num_workers, self.log = raw_dir, store, num_workers, log
        self._places = (str(raw_dir), str(store_path))
        self.num_new = self.num_cached = self.num_decoded = self.num_to_retry = 0
        self._readers: DecodePool | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._waiting: list[tuple[Future[list[Read]], tuple[SourceFile, ...]]] = []

    def run(self) -> None:
        """Walk, read and store; every finished batch is kept if this is interrupted."""
        self.store.begin_scan()
        try:
            for batch in _batched(self._new_files(), _BATCH_FILES):
                self._take(batch)
            self._drain(0)
        finally:
            self._stop_readers()

    def _new_files(self) -> Iterator[SourceFile]:
        for entries in _batched(walk(self.raw_dir), _LOOKED_AT_ONCE):
            files = [entry for entry in entries if isinstance(entry, SourceFile)]
            self._report(entry for entry in entries if not isinstance(entry, SourceFile))
            changed = self.store.match_known(files)
            self.num_cached += len(files) - len(changed)
            yield from changed

    def _take(self, batch: tuple[SourceFile, ...]) -> None:
        self.num_new += len(batch)
        if self.num_new % (_BATCH_FILES * 20) < _BATCH_FILES:
            self.log(f"{self.num_new:,} new and {self.num_cached:,} known files so far")
        if self.num_workers == 1 or self.num_new < _PARALLEL_FROM_FILES:
            self._keep(batch, read_files(*self._places, batch))
            return
        if self._readers is None or self._threads is None:
            self._readers = DecodePool(self.num_workers, *self._places)
            self._threads = ThreadPoolExecutor(self.num_workers, "readers")
        self._waiting.append((self._threads.submit(self._readers.read, batch), batch))
        self._drain(2 * self.num_workers)

    def _drain(self, num_left: int) -> None:
        while len(self._waiting) > num_left:
            future, batch = self._waiting.pop(0)
            try:
                read = future.result()
            except WorkerDiedError:
                self.log("A reader process died (out of memory?); running in this process")
                self.num_workers = 1
                read = read_files(*self._places, batch)
            self._keep(batch, read)

    def _stop_readers(self) -> None:
        if self._readers and self._threads:
            self._readers.close()
            self._threads.shutdown(cancel_futures=True)

    def _keep(self, batch: tuple[SourceFile, ...], read: list[Read]) -> None:
        self._report(skipped for skipped in read if isinstance(skipped, tuple))
        pairs = [(file, result) for file, result in zip(batch, read, strict=True) if isinstance(result, DecodedContent)]
        self.num_decoded += sum(content.is_new for _, content in pairs)
        self.store.add(pairs, _descriptors([content for _, content in pairs]))

    def _report(self, skipped_files: Iterable[SkippedFile]) -> None:
        kept = list(skipped_files)
        self.num_to_retry += sum(code in (FAILED_READ, OUT_OF_MEMORY) for _, code, _ in kept)
        if kept:
            self.store.add_skipped(kept)


def _descriptors(contents: list[DecodedContent]) -> dict[str, bytes]:
    """Return the descriptors of the accepted contents, by hash; computed at once, because that is cheap."""
    accepted = [content for content in contents if content.pixels]
    if not accepted:
        return {}
    flat = b"".join(content.pixels or b"" for content in accepted)
    pixels = np.frombuffer(flat, dtype=np.uint8).reshape(-1, IMAGE_SIZE_PX, IMAGE_SIZE_PX)
    found = zip(accepted, compute_descriptors(pixels), strict=True)
    return {content.content_hash: descriptor.tobytes() for content, descriptor in found}


_Item = TypeVar("_Item")


def _batched(items: Iterable[_Item], size: int) -> Iterator[tuple[_Item, ...]]:
    iterator = iter(items)
    while batch := tuple(islice(iterator, size)):
        yield batch
