"""Take stock of `raw/`: read what is new, remember what was read, report everything that is odd.

The pipeline only ever reads here. Bytes are read once; what is hashed is what is decoded. A file that is
known by path, size, time and inode is not opened again; a content that is known by its hash is not
decoded again. Links are not followed, so nothing outside the tree is read.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emotion_assets.core.emotions import EMOTIONS, emotion_of_folder
from emotion_assets.core.errors import PictureError, PictureTooLargeError, UnusableDataError
from emotion_assets.core.files import sync_folder
from emotion_assets.core.images import IMAGE_SIZE_PX, MAX_PICTURE_BYTES, decode_picture
from emotion_assets.steps.data.near_duplicates import compare_new_contents, describe, group_names
from emotion_assets.steps.data.store import Content, SeenFile, Store

STORE_NAME: Final = "pictures.sqlite"
TABLE_NAME: Final = "catalogue.parquet"

_BATCH_FILES: Final = 128
# Starting worker processes pays off from about this many new files.
_PARALLEL_FROM_FILES: Final = 1000
_ARCHIVE_SUFFIXES: Final = (b".zip", b".tar", b".tgz", b".gz", b".bz2", b".xz", b".7z", b".rar")
_UNFINISHED_SUFFIXES: Final = (b".part", b".partial", b".tmp", b".crdownload", b".download")


@dataclass(frozen=True, slots=True)
class StockReport:
    """What one walk over `raw/` found, in numbers of files (and seconds)."""

    num_files: int
    num_new: int
    num_cached: int
    num_removed: int
    num_decoded: int
    num_odd: int
    num_new_pairs: int
    seconds: float
    fingerprint: str
    """Changes with the accepted contents and their labels, not with names, order or times."""


Oddity = tuple[bytes, str, str]

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
    log: Callable[[str], None] = lambda _: None,
) -> StockReport:
    """Bring the catalogue in `catalogue_dir` up to date with the files under `raw_dir`.

    Args:
        raw_dir: one folder for each emotion, photographs at any depth below.
        catalogue_dir: gets `pictures.sqlite` (the store) and `catalogue.parquet` (one row a file).
        num_workers: processes that decode; one for each core by default.
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
    with Store(catalogue_dir / STORE_NAME) as store:
        ingest = _Ingest(raw_dir, catalogue_dir / STORE_NAME, store, num_workers or os.cpu_count() or 1, log)
        ingest.run()
        num_removed = store.end_walk()
        log("Comparing new pictures with all others")
        num_new_pairs = compare_new_contents(store)
        table_path = catalogue_dir / TABLE_NAME
        if ingest.num_new or num_removed or ingest.num_odd or not table_path.exists():
            publish(store, catalogue_dir, splits={})
        fingerprint = _fingerprint(store)
    return StockReport(
        num_files=ingest.num_new + ingest.num_cached,
        num_new=ingest.num_new,
        num_cached=ingest.num_cached,
        num_removed=num_removed,
        num_decoded=ingest.num_decoded,
        num_odd=ingest.num_odd,
        num_new_pairs=num_new_pairs,
        seconds=time.monotonic() - started,
        fingerprint=fingerprint,
    )


def _fingerprint(store: Store) -> str:
    digest = hashlib.sha256()
    for _, content_hash, label in store.labelled_contents():
        digest.update(f"{content_hash} {label}\n".encode())
    return digest.hexdigest()


class _Ingest:
    """One walk: counts what it meets, keeps at most a few batches in flight."""

    def __init__(
        self, raw_dir: Path, store_path: Path, store: Store, num_workers: int, log: Callable[[str], None]
    ) -> None:
        self.raw_dir, self.store, self.num_workers, self.log = raw_dir, store, num_workers, log
        self._places = (str(raw_dir), str(store_path))
        self.num_new = self.num_cached = self.num_decoded = self.num_odd = 0
        self._pool: Executor | None = None
        self._waiting: list[tuple[Future[list[_Read]], tuple[SeenFile, ...]]] = []

    def run(self) -> None:
        """Walk, read and store; every finished batch is kept if this is interrupted."""
        self.store.begin_walk()
        try:
            for batch in _batched(self._new_files(), _BATCH_FILES):
                self._take(batch)
            self._drain(0)
        finally:
            if self._pool:
                self._pool.shutdown(cancel_futures=True)

    def _new_files(self) -> Iterator[SeenFile]:
        for entries in _batched(walk(self.raw_dir), 1000):
            files = [entry for entry in entries if isinstance(entry, SeenFile)]
            self._report(entry for entry in entries if not isinstance(entry, SeenFile))
            self.store.note_seen(file.path for file in files)
            for file in files:
                if self.store.is_unchanged(file):
                    self.num_cached += 1
                else:
                    yield file

    def _take(self, batch: tuple[SeenFile, ...]) -> None:
        self.num_new += len(batch)
        if self.num_new % (_BATCH_FILES * 20) < _BATCH_FILES:
            self.log(f"{self.num_new:,} new and {self.num_cached:,} known files so far")
        if self.num_workers == 1 or self.num_new < _PARALLEL_FROM_FILES:
            self._keep(batch, read_files(*self._places, batch))
            return
        if self._pool is None:
            # Spawned, not forked: the caller may run threads (Dagster does).
            self._pool = ProcessPoolExecutor(self.num_workers, multiprocessing.get_context("spawn"))
        self._waiting.append((self._pool.submit(read_files, *self._places, batch), batch))
        self._drain(2 * self.num_workers)

    def _drain(self, num_left: int) -> None:
        while len(self._waiting) > num_left:
            future, batch = self._waiting.pop(0)
            try:
                read = future.result()
            except BrokenProcessPool:
                # A worker was killed (out of memory, most likely): go on here, one file at a time.
                self._pool, self.num_workers = None, 1
                read = read_files(*self._places, batch)
            self._keep(batch, read)

    def _keep(self, batch: tuple[SeenFile, ...], read: list[_Read]) -> None:
        self._report(oddity for oddity in read if isinstance(oddity, tuple))
        pairs = [(file, result) for file, result in zip(batch, read, strict=True) if isinstance(result, Content)]
        self.num_decoded += sum(content.format is not None or content.refusal is not None for _, content in pairs)
        self.store.add(pairs)

    def _report(self, oddities: Iterable[Oddity]) -> None:
        kept = list(oddities)
        self.num_odd += len(kept)
        self.store.add_oddities(kept)


_Read = Content | Oddity
_Item = TypeVar("_Item")


def _batched(items: Iterable[_Item], size: int) -> Iterator[tuple[_Item, ...]]:
    iterator = iter(items)
    while batch := tuple(islice(iterator, size)):
        yield batch


def walk(raw_dir: Path) -> Iterator[SeenFile | Oddity]:
    """Yield every file below `raw_dir`: labelled regular files, and (path, code, reason) for all else."""
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


def _walk_folder(root: bytes, folder: bytes, label: str) -> Iterator[SeenFile | Oddity]:
    try:
        entries = os.scandir(os.path.join(root, folder))
    except OSError as error:
        yield folder, "unreadable_file", f"The folder cannot be read ({error.strerror}). Check its permissions."
        return
    with entries:
        for entry in entries:
            path = os.path.join(folder, entry.name)
            try:
                if entry.is_dir(follow_symlinks=False):
                    yield from _walk_folder(root, path, label)
                elif entry.name.lower().endswith(_UNFINISHED_SUFFIXES):
                    yield path, "unfinished_copy", "The name says that it is still being copied. It waits."
                elif entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    yield SeenFile(path, label, status.st_size, status.st_mtime_ns, status.st_ino)
                else:
                    yield path, *_why_odd(entry)
            except FileNotFoundError:
                continue  # vanished between listing and looking: it is not there any more
            except OSError as error:
                yield path, "unreadable_file", f"The file cannot be read ({error.strerror}). Check its permissions."


def _why_odd(entry: os.DirEntry[bytes]) -> tuple[str, str]:
    if entry.is_symlink():
        return "symbolic_link", "Links are not followed. Copy the file or folder here instead."
    if not entry.is_file(follow_symlinks=False):
        return "not_a_file", "This is a pipe, socket or device. Remove it."
    if entry.name.lower().endswith(_ARCHIVE_SUFFIXES):
        return "packed_archive", "Archives are not unpacked. Unpack it into the emotions' folders."
    return "unlabelled_file", f"The file lies in no emotion's folder ({', '.join(EMOTIONS)}). Move it into one."


def read_files(raw_dir: str, store_path: str, files: Iterable[SeenFile]) -> list[_Read]:
    """Read `files` and decode those whose content the store does not hold.

    Returns:
        For each file its content (the bare hash if it is known), or an oddity if it could not be read.
    """
    root = os.fsencode(raw_dir)
    with closing(sqlite3.connect(f"file:{store_path}?mode=ro", uri=True, timeout=60)) as connection:
        known: set[str] = set()
        results: list[_Read] = []
        for file in files:
            read = _read_file(root, file)
            if isinstance(read, bytes):
                read = _read_content(read, connection, known)
            results.append(read)
    return _described(results)


def _described(results: list[_Read]) -> list[_Read]:
    """Add the descriptors, computed for the whole batch at once."""
    accepted = [index for index, read in enumerate(results) if isinstance(read, Content) and read.pixels]
    if accepted:
        flat = b"".join(results[index].pixels for index in accepted)  # type: ignore[union-attr, misc]
        pixels = np.frombuffer(flat, dtype=np.uint8).reshape(-1, IMAGE_SIZE_PX, IMAGE_SIZE_PX)
        for index, descriptor in zip(accepted, describe(pixels), strict=True):
            results[index] = replace(results[index], descriptor=descriptor.tobytes())  # type: ignore[type-var]
    return results


def _read_file(root: bytes, file: SeenFile) -> bytes | Content | Oddity:
    if file.size_bytes > MAX_PICTURE_BYTES:
        # Not even hashed: it may be a sparse file of terabytes. Its size stands in for its content.
        return Content(
            f"size-{file.size_bytes}",
            refusal_code=PictureTooLargeError.code,
            refusal=f"The file has {file.size_bytes:,} bytes; at most {MAX_PICTURE_BYTES:,} are read.",
        )
    try:
        # Neither follows a link nor waits for a pipe that took the file's place.
        descriptor = os.open(os.path.join(root, file.path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return file.path, "vanished", "The file was removed while the folder was read."
    except OSError as error:
        return file.path, "unreadable_file", f"The file cannot be opened ({error.strerror}). Check its permissions."
    with open(descriptor, "rb") as opened:
        try:
            content = opened.read(MAX_PICTURE_BYTES + 1)
            status = os.fstat(descriptor)
        except OSError as error:
            return file.path, "unreadable_file", f"The file cannot be read ({error.strerror}). Check the disk."
    unchanged = (status.st_size, status.st_mtime_ns) == (file.size_bytes, file.mtime_ns)
    if not stat.S_ISREG(status.st_mode) or not unchanged or len(content) != file.size_bytes:
        return file.path, "still_changing", "The file changed while it was read. The next run takes it."
    return content


def _read_content(content: bytes, connection: sqlite3.Connection, known: set[str]) -> Content:
    digest = hashlib.sha256(content).hexdigest()
    if digest in known or connection.execute("SELECT 1 FROM contents WHERE content_hash = ?", (digest,)).fetchone():
        return Content(digest)
    known.add(digest)
    try:
        picture = decode_picture(content)
    except PictureError as error:
        return Content(digest, refusal_code=error.code, refusal=str(error))
    return Content(
        digest,
        picture.width_px,
        picture.height_px,
        picture.mode,
        picture.format,
        picture.pixels.tobytes(),
    )


def publish(store: Store, catalogue_dir: Path, splits: dict[str, str]) -> Path:
    """Write `catalogue.parquet`, one row a file, for people and other tools; return its path.

    `splits` gives the split (or the reason for having none) by content hash.
    """
    table_path = catalogue_dir / TABLE_NAME
    temporary = table_path.with_name(f".{TABLE_NAME}.{os.getpid()}.tmp")
    with pq.ParquetWriter(temporary, _TABLE_SCHEMA) as writer:
        # In portions, so that memory does not grow with the number of files.
        for rows in _batched(_table_rows(store, splits), _ROWS_A_GROUP):
            writer.write_table(pa.Table.from_pylist(list(rows), _TABLE_SCHEMA))
    temporary.replace(table_path)
    sync_folder(catalogue_dir)
    return table_path


def _table_rows(store: Store, splits: dict[str, str]) -> Iterator[dict[str, object]]:
    groups = group_names(store.pairs(), store.hashes_by_id())
    labels: dict[int, set[str]] = {}
    for content_id, _, label in store.labelled_contents():
        labels.setdefault(content_id, set()).add(label)
    conflicting = conflicts(store, labels)
    columns = _TABLE_SCHEMA.names[:8]
    for path, label, size_bytes, content_hash, width, height, mode, form, code, reason, content_id in store.file_rows():
        facts = (_readable(path), label, size_bytes, content_hash, width, height, mode, form)
        yield {
            **dict(zip(columns, facts, strict=True)),
            "is_accepted": code is None,
            "reason_code": code,
            "reason": reason,
            "near_duplicate_group": groups.get(content_id),
            "has_label_conflict": content_id in conflicting,
            "split": splits.get(content_hash),
        }
    for path, code, reason in store.oddities():
        yield {
            "path": _readable(path),
            "is_accepted": False,
            "reason_code": code,
            "reason": reason,
            "has_label_conflict": False,
        }


def folder_signature(raw_dir: Path) -> tuple[str, int, float]:
    """Look at names, sizes and times only, for a sensor that must be quick.

    Returns:
        A signature that changes when a labelled file comes, goes or changes; the number of such files; and
        the newest modification time in seconds since the epoch (0 when there is none).
    """
    total, count, newest = 0, 0, 0
    for entry in walk(raw_dir) if raw_dir.is_dir() else ():
        if isinstance(entry, SeenFile):
            described = b"%b\0%d\0%d" % (entry.path, entry.size_bytes, entry.mtime_ns)
            # A sum does not depend on the order in which the file system lists a folder.
            total += int.from_bytes(hashlib.blake2b(described, digest_size=16).digest())
            count += 1
            newest = max(newest, entry.mtime_ns)
    return f"{total % 2**128:032x}", count, newest / 1e9


def conflicts(store: Store, labels: dict[int, set[str]]) -> set[int]:
    """Return the ids of contents that carry two labels, themselves or together with a near-duplicate."""
    conflicting = {content_id for content_id, names in labels.items() if len(names) > 1}
    for first, second in store.pairs().tolist():
        if first in labels and second in labels and labels[first] != labels[second]:
            conflicting |= {first, second}
    return conflicting


def _readable(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
