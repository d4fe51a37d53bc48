"""Ingest `raw/`: read what is new, remember what was read, and list every file that cannot be used.

`raw/` is only ever read. A file that is known by path, size, time and inode is not opened again; a content that is
known by its hash is not decoded again.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Final, TypeVar

import numpy as np

from emotion_assets.core.classes import ClassSet, read_classes
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.files import locked, remove_temporary_files
from emotion_assets.core.images import IMAGE_SIZE_PX
from emotion_assets.core.layout import DataPaths
from emotion_assets.core.limits import count_cpus
from emotion_assets.core.remote import is_remote
from emotion_assets.steps.ingest.decode import DecodedContent, ReadResult
from emotion_assets.steps.ingest.decode_pool import Batch, DecodePool
from emotion_assets.steps.ingest.export import TABLE_NAME, export_catalogue, read_tables_digest
from emotion_assets.steps.ingest.near_duplicates import compare_new_contents, compute_descriptors
from emotion_assets.steps.ingest.ray_pool import read_on_cluster
from emotion_assets.steps.ingest.report import IngestReport
from emotion_assets.steps.ingest.scan import FolderScan, SkipCode, SkippedFile, SourceFile
from emotion_assets.steps.ingest.store import STORE_NAME, Store
from emotion_assets.steps.ingest.subjects import digest_tables, find_subjects

LOCK_NAME: Final = ".lock"
BATCH_FILES: Final = 128
_LOOKUP_FILES: Final = 500
LOG_EVERY_FILES: Final = 2560

_logger = logging.getLogger(__name__)


def ingest_images(paths: DataPaths, *, num_workers: int | None = None, engine: str = "local") -> IngestReport:
    """Bring the catalogue up to date with the files in `raw/`.

    Writes the store (`images.sqlite`, `pixels.bin`) and `catalogue.parquet`, one row for each file.

    The engine `local` decodes in `num_workers` processes, by default one for each allowed processor; `ray` on the nodes
    of a Ray cluster.

    Raises:
        UnusableDataError: `raw/` does not exist, `classes.yaml` is wrong, or far too many images are near-duplicates.
    """
    classes = read_classes(paths.classes)
    raw = paths.raw_source
    if not is_remote(raw) and not paths.raw.is_dir():
        raise UnusableDataError(
            f"There is no folder {paths.raw}. Put images into {paths.raw}/<Class>/ ({classes}), "
            "or draw demo faces with `make demo`."
        )
    started, report = time.monotonic(), IngestReport(paths, classes.names)
    store_path = paths.catalogue / STORE_NAME
    with locked(paths.catalogue / LOCK_NAME), Store(store_path) as store:
        remove_temporary_files(paths.catalogue)
        ingest = _Ingest(FolderScan(raw, classes), store, report)
        local = DecodePool(raw, str(store_path), num_workers or count_cpus()).read
        ingest.run(partial(read_on_cluster, raw) if engine == "ray" else local)
        if store.has_missing_files():
            report.num_removed = _drop_missing_files(store, raw, classes)
        _logger.info("Comparing new images with all others")
        compare_new_contents(store)
        fingerprint, tables = store.published_fingerprint(), digest_tables(paths)
        # A table of subjects may change without any image.
        if fingerprint is None or tables != read_tables_digest(paths.catalogue / TABLE_NAME):
            store.sync()
            export_catalogue(store, paths.catalogue, find_subjects(store, paths).by_content, tables)
            fingerprint = _fingerprint(store, tables)
            store.mark_published(fingerprint)
    report.seconds, report.fingerprint = time.monotonic() - started, fingerprint
    report.state = None if report.num_to_retry else ingest.scan.state
    return report


def _drop_missing_files(store: Store, raw_dir: str, classes: ClassSet) -> int:
    """Walk `raw_dir` again, to learn which of the known files are gone."""
    unreadable_folders: list[bytes] = []

    def present_paths() -> Iterator[list[bytes]]:
        for entries in _batched(FolderScan(raw_dir, classes), _LOOKUP_FILES):
            yield [entry.path for entry in entries if isinstance(entry, SourceFile)]
            skipped = (entry for entry in entries if isinstance(entry, SkippedFile))
            unreadable_folders.extend(
                entry.path for entry in skipped if entry.code in {SkipCode.UNREADABLE, SkipCode.FAILED_READ}
            )

    return store.drop_missing(present_paths(), unreadable_folders)


def _fingerprint(store: Store, tables: str) -> str:
    digest = hashlib.sha256(tables.encode())
    for content_hash, label, checksum in store.labelled_contents():
        digest.update(f"{content_hash} {label} {checksum}\n".encode())
    return digest.hexdigest()


class _Ingest:
    """One walk over `raw/`, which counts what it meets in `report`."""

    def __init__(self, scan: FolderScan, store: Store, report: IngestReport) -> None:
        self.scan, self._store, self._report = scan, store, report

    def run(self, read_batches: Callable[[Iterable[Batch]], Generator[tuple[Batch, list[ReadResult]]]]) -> None:
        """Walk, decode and store; every stored batch survives an interruption."""
        self._store.begin_scan()
        with closing(read_batches(_batched(self._new_files(), BATCH_FILES))) as results:
            for batch, read in results:
                self._add(batch, read)

    def _new_files(self) -> Iterator[SourceFile]:
        for entries in _batched(self.scan, _LOOKUP_FILES):
            files = [entry for entry in entries if isinstance(entry, SourceFile)]
            self._add_skipped(entries)
            changed = self._store.match_known(files)
            self._report.num_cached += len(files) - len(changed)
            yield from changed

    def _add(self, batch: Batch, results: list[ReadResult]) -> None:
        self._report.num_new += len(batch)
        num_new, num_cached = self._report.num_new, self._report.num_cached
        if num_new % LOG_EVERY_FILES < len(batch):
            _logger.info("%s new and %s known files so far", f"{num_new:,}", f"{num_cached:,}")
        self._add_skipped(results)
        pairs = [
            (file, result) for file, result in zip(batch, results, strict=True) if isinstance(result, DecodedContent)
        ]
        self._report.num_decoded += sum(content.is_new for _, content in pairs)
        self._store.add(pairs, _descriptors([content for _, content in pairs]))

    def _add_skipped(self, entries: Iterable[SourceFile | ReadResult]) -> None:
        skipped = [entry for entry in entries if isinstance(entry, SkippedFile)]
        retried = {SkipCode.FAILED_READ, SkipCode.OUT_OF_MEMORY}
        self._report.num_to_retry += sum(entry.code in retried for entry in skipped)
        if skipped:
            self._store.add_skipped(skipped)


def _descriptors(contents: list[DecodedContent]) -> dict[str, bytes]:
    accepted = [content for content in contents if content.pixels]
    if not accepted:
        return {}
    joined = b"".join(content.pixels or b"" for content in accepted)
    pixels = np.frombuffer(joined, dtype=np.uint8).reshape(-1, IMAGE_SIZE_PX, IMAGE_SIZE_PX)
    found = zip(accepted, compute_descriptors(pixels), strict=True)
    return {content.content_hash: descriptor.tobytes() for content, descriptor in found}


_Item = TypeVar("_Item")


def _batched(items: Iterable[_Item], size: int) -> Iterator[tuple[_Item, ...]]:
    iterator = iter(items)
    while batch := tuple(islice(iterator, size)):
        yield batch
