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
import pyarrow as pa
import pyarrow.parquet as pq

from emotion_assets.core.emotions import EMOTIONS, emotion_of_folder
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.files import atomic_file, locked, remove_drafts
from emotion_assets.core.images import IMAGE_SIZE_PX
from emotion_assets.steps.data.near_duplicates import compare_new_contents, describe, group_names
from emotion_assets.steps.data.reading import (
    FAILED_READ,
    OUT_OF_MEMORY,
    UNREADABLE,
    Content,
    Oddity,
    Read,
    ReaderDiedError,
    Readers,
    SeenFile,
    read_files,
    unread,
)
from emotion_assets.steps.data.store import Store

LOCK_NAME: Final = ".lock"
STORE_NAME: Final = "pictures.sqlite"
TABLE_NAME: Final = "catalogue.parquet"

_BATCH_FILES: Final = 128
_LOOKED_AT_ONCE: Final = 500
# Starting worker processes pays off from about this many new files.
_PARALLEL_FROM_FILES: Final = 1000
_ARCHIVE_SUFFIXES: Final = (b".zip", b".tar", b".tgz", b".gz", b".bz2", b".xz", b".7z", b".rar")
_Looked = tuple[SeenFile, os.stat_result]
_UNFINISHED_SUFFIXES: Final = (b".part", b".partial", b".tmp", b".crdownload", b".download")
_SYSTEM_FILES: Final = (b"thumbs.db", b"desktop.ini")


@dataclass(frozen=True, slots=True)
class StockReport:
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
    """Changes with the accepted pictures and their labels, not with names, order or times."""


_ROWS_A_GROUP: Final = 20_000
_TABLE_SCHEMA: Final = pa.schema(
    [
        ("path", pa.string()),
        ("label", pa.string()),
        ("size_bytes", pa.int64()),
        ("content_hash", pa.string()),
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("mode", pa.string()),
        ("format", pa.string()),
        ("is_accepted", pa.bool_()),
        ("reason_code", pa.string()),
        ("reason", pa.string()),
        ("near_duplicate_group", pa.string()),
        ("has_label_conflict", pa.bool_()),
        ("split", pa.string()),
    ]
)


def take_stock(
    raw_dir: Path,
    catalogue_dir: Path,
    *,
    num_workers: int | None = None,
    splits: Mapping[str, str] | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> StockReport:
    """Bring the catalogue in `catalogue_dir` up to date with the files under `raw_dir`.

    Args:
        raw_dir: one folder for each emotion, photographs at any depth below.
        catalogue_dir: gets `pictures.sqlite` (the store) and `catalogue.parquet` (one row a file).
        num_workers: processes that decode; one for each core by default.
        splits: the splits given so far, by content hash, for the table.
        log: is told now and then how far it is.

    Raises:
        UnusableDataError: `raw_dir` does not exist.
    """
    if not raw_dir.is_dir():
        raise UnusableDataError(
            f"There is no folder {raw_dir}. Put photographs into {raw_dir}/<Emotion>/ "
            f"({', '.join(EMOTIONS)}), or draw demo faces with `make demo`."
        )
    started = time.monotonic()
    with locked(catalogue_dir / LOCK_NAME), Store(catalogue_dir / STORE_NAME) as store:
        remove_drafts(catalogue_dir)
        ingest = _Ingest(raw_dir, catalogue_dir / STORE_NAME, store, num_workers or os.cpu_count() or 1, log)
        ingest.run()
        unseen: list[bytes] = []
        num_removed = store.drop_others(_paths(raw_dir, unseen), unseen) if store.has_missed() else 0
        log("Comparing new pictures with all others")
        compare_new_contents(store)
        if not store.is_published() or not _is_whole(catalogue_dir / TABLE_NAME):
            store.sync()
            publish(store, catalogue_dir, splits or {})
            store.note_published(_fingerprint(store))
        fingerprint = store.published_fingerprint()
    return StockReport(
        num_files=ingest.num_new + ingest.num_cached,
        num_new=ingest.num_new,
        num_cached=ingest.num_cached,
        num_removed=num_removed,
        num_decoded=ingest.num_decoded,
        num_to_retry=ingest.num_to_retry,
        seconds=time.monotonic() - started,
        fingerprint=fingerprint,
    )


def _is_whole(table_path: Path) -> bool:
    """Tell whether there is a table that can be read; its last bytes say so."""
    try:
        pq.read_metadata(table_path)
    except (OSError, pa.ArrowInvalid):
        return False
    return True


def _paths(raw_dir: Path, unseen: list[bytes]) -> Iterator[list[bytes]]:
    """Look once more which files there are, and note folders that cannot be read; only needed when some have gone."""
    for entries in _batched(walk(raw_dir), _LOOKED_AT_ONCE):
        yield [entry.path for entry in entries if isinstance(entry, SeenFile)]
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
        self._readers: Readers | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._waiting: list[tuple[Future[list[Read]], tuple[SeenFile, ...]]] = []

    def run(self) -> None:
        """Walk, read and store; every finished batch is kept if this is interrupted."""
        self.store.begin_walk()
        try:
            for batch in _batched(self._new_files(), _BATCH_FILES):
                self._take(batch)
            self._drain(0)
        finally:
            self._stop_readers()

    def _new_files(self) -> Iterator[SeenFile]:
        for entries in _batched(walk(self.raw_dir), _LOOKED_AT_ONCE):
            files = [entry for entry in entries if isinstance(entry, SeenFile)]
            self._report(entry for entry in entries if not isinstance(entry, SeenFile))
            changed = self.store.note_met(files)
            self.num_cached += len(files) - len(changed)
            yield from changed

    def _take(self, batch: tuple[SeenFile, ...]) -> None:
        self.num_new += len(batch)
        if self.num_new % (_BATCH_FILES * 20) < _BATCH_FILES:
            self.log(f"{self.num_new:,} new and {self.num_cached:,} known files so far")
        if self.num_workers == 1 or self.num_new < _PARALLEL_FROM_FILES:
            self._keep(batch, read_files(*self._places, batch))
            return
        if self._readers is None or self._threads is None:
            self._readers = Readers(self.num_workers, *self._places)
            self._threads = ThreadPoolExecutor(self.num_workers, "readers")
        self._waiting.append((self._threads.submit(self._readers.read, batch), batch))
        self._drain(2 * self.num_workers)

    def _drain(self, num_left: int) -> None:
        while len(self._waiting) > num_left:
            future, batch = self._waiting.pop(0)
            try:
                read = future.result()
            except ReaderDiedError:
                self.log("A reader process died (out of memory?); going on in this process")
                self.num_workers = 1
                read = read_files(*self._places, batch)
            self._keep(batch, read)

    def _stop_readers(self) -> None:
        if self._readers and self._threads:
            self._readers.close()
            self._threads.shutdown(cancel_futures=True)

    def _keep(self, batch: tuple[SeenFile, ...], read: list[Read]) -> None:
        self._report(oddity for oddity in read if isinstance(oddity, tuple))
        pairs = [(file, result) for file, result in zip(batch, read, strict=True) if isinstance(result, Content)]
        self.num_decoded += sum(content.is_fresh for _, content in pairs)
        self.store.add(pairs, _descriptors([content for _, content in pairs]))

    def _report(self, oddities: Iterable[Oddity]) -> None:
        kept = list(oddities)
        self.num_to_retry += sum(code in (FAILED_READ, OUT_OF_MEMORY) for _, code, _ in kept)
        if kept:
            self.store.add_oddities(kept)


def _descriptors(contents: list[Content]) -> dict[str, bytes]:
    """Return the descriptors of the accepted contents, by hash; computed at once, because that is cheap."""
    accepted = [content for content in contents if content.pixels]
    if not accepted:
        return {}
    flat = b"".join(content.pixels or b"" for content in accepted)
    pixels = np.frombuffer(flat, dtype=np.uint8).reshape(-1, IMAGE_SIZE_PX, IMAGE_SIZE_PX)
    found = zip(accepted, describe(pixels), strict=True)
    return {content.content_hash: descriptor.tobytes() for content, descriptor in found}


_Item = TypeVar("_Item")


def _batched(items: Iterable[_Item], size: int) -> Iterator[tuple[_Item, ...]]:
    iterator = iter(items)
    while batch := tuple(islice(iterator, size)):
        yield batch


def walk(raw_dir: Path) -> Iterator[SeenFile | Oddity]:
    """Yield every file below `raw_dir`: labelled regular files, and (path, code, reason) for all else."""
    for entry in _walk(raw_dir):
        yield entry[0] if len(entry) == 2 else entry


def _walk(raw_dir: Path) -> Iterator[_Looked | Oddity]:
    root = os.fsencode(raw_dir)
    for top in sorted(os.scandir(root), key=lambda entry: entry.name):
        if not top.is_dir(follow_symlinks=False):
            yield top.name, *_why_odd(top)
            continue
        label = emotion_of_folder(os.fsdecode(top.name))
        if label is None:
            yield (
                top.name,
                "unknown_folder",
                f"The folder stands for none of {', '.join(EMOTIONS)}; nothing in it is used. Rename or remove it.",
            )
            continue
        yield from _walk_folder(root, top.name, label)


def _walk_folder(root: bytes, folder: bytes, label: str) -> Iterator[_Looked | Oddity]:
    try:
        entries = os.scandir(os.path.join(root, folder))
    except FileNotFoundError:
        return  # vanished between listing and looking
    except OSError as error:
        yield unread(folder, "folder", error)
        return
    with entries:
        for entry in entries:
            path = b"%b/%b" % (folder, entry.name)
            try:
                if entry.is_dir(follow_symlinks=False):
                    yield from _walk_folder(root, path, label)
                elif entry.name.lower().endswith(_UNFINISHED_SUFFIXES):
                    yield path, "unfinished_copy", "The name says that it is still being copied. It waits."
                elif entry.name.startswith(b".") or entry.name.lower() in _SYSTEM_FILES:
                    yield path, "system_file", "Hidden files are passed over: programs keep their own so, and drafts."
                elif entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    yield SeenFile(path, label, status.st_size, status.st_mtime_ns, status.st_ino), status
                else:
                    yield path, *_why_odd(entry)
            except FileNotFoundError:
                continue  # vanished between listing and looking: it is not there any more
            except OSError as error:
                yield unread(path, "file", error)


def _why_odd(entry: os.DirEntry[bytes]) -> tuple[str, str]:
    if entry.is_symlink():
        return "symbolic_link", "Links are not followed. Copy the file or folder here instead."
    if not entry.is_file(follow_symlinks=False):
        return "not_a_file", "This is a pipe, socket or device. Remove it."
    if entry.name.lower().endswith(_ARCHIVE_SUFFIXES):
        return "packed_archive", "Archives are not unpacked. Unpack it into the emotions' folders."
    return "unlabelled_file", f"The file lies in no emotion's folder ({', '.join(EMOTIONS)}). Move it into one."


def publish(store: Store, catalogue_dir: Path, splits: Mapping[str, str]) -> Path:
    """Write `catalogue.parquet`, one row a file, for people and other tools; return its path.

    `splits` gives the split (or the reason for having none) by content hash.
    """
    table_path = catalogue_dir / TABLE_NAME
    with atomic_file(table_path) as file, pq.ParquetWriter(file, _TABLE_SCHEMA) as writer:
        # In portions, so that memory does not grow with the number of files.
        for rows in _batched(_table_rows(store, splits), _ROWS_A_GROUP):
            columns = [list(column) for column in zip(*rows, strict=True)]
            writer.write_table(pa.table(columns, schema=_TABLE_SCHEMA))
    return table_path


def _table_rows(store: Store, splits: Mapping[str, str]) -> Iterator[tuple[object, ...]]:
    """Yield a row of _TABLE_SCHEMA for each file, and for each thing that is no usable file."""
    groups = group_names(store.pairs(), store.hashes_by_id())
    conflicting = conflicts(store, store.labels_by_content())
    for path, *facts, code, reason, content_id in store.file_rows():
        content_hash = str(facts[2])
        group, split = groups.get(content_id), splits.get(content_hash)
        yield (_readable(path), *facts, code is None, code, reason, group, content_id in conflicting, split)
    empty = dict.fromkeys(_TABLE_SCHEMA.names)
    for path, code, reason in store.oddities():
        known = {"path": _readable(path), "is_accepted": False, "reason_code": code, "reason": reason}
        yield tuple((empty | known | {"has_label_conflict": False}).values())


def folder_signature(raw_dir: Path, without: str = "") -> tuple[str, int]:
    """Look at names, sizes and times only, for a sensor that must be quick; pass over `<Emotion>/<without>/`.

    Returns:
        A signature that changes when a labelled file comes, goes, changes or becomes readable, and the number of such
        files.
    """
    total, count = 0, 0
    for entry in _walk(raw_dir) if raw_dir.is_dir() else ():
        if len(entry) == 2 and entry[0].path.split(b"/")[1] != os.fsencode(without):
            file, status = entry
            described = b"%b\0%d\0%d\0%d" % (file.path, file.size_bytes, file.mtime_ns, status.st_mode)
            # A sum does not depend on the order in which the file system lists a folder.
            total += int.from_bytes(hashlib.blake2b(described, digest_size=16).digest())
            count += 1
    return f"{total % 2**128:032x}", count


def conflicts(store: Store, labels: dict[int, set[str]]) -> set[int]:
    """Return the ids of contents that carry two labels, themselves or together with a near-duplicate."""
    conflicting = {content_id for content_id, names in labels.items() if len(names) > 1}
    for first, second in store.pairs().tolist():
        if first in labels and second in labels and labels[first] != labels[second]:
            conflicting |= {first, second}
    return conflicting


def _readable(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
