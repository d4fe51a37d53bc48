"""The ingest's memory: contents by their hash, files by their path, pairs of near-duplicates.

One SQLite file, because an interrupted ingest must leave every finished batch and nothing torn, and a million files
must not be held in memory; the pixels are in a flat file beside it. Contents are never deleted: an image that comes
back is not decoded again and keeps its near-duplicates.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import sqlite3
import zlib
from collections.abc import Collection, Iterable, Iterator
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.images import DECODER_VERSION, Pixels
from emotion_assets.steps.ingest.decode import DecodedContent
from emotion_assets.steps.ingest.pixel_file import PixelFile
from emotion_assets.steps.ingest.scan import SkippedFile, SourceFile

STORE_NAME: Final = "images.sqlite"
PIXELS_NAME: Final = "pixels.bin"

_SCHEMA_VERSION: Final = 6
_SCHEMA: Final = """
CREATE TABLE contents (
    content_id INTEGER PRIMARY KEY,
    content_hash TEXT NOT NULL UNIQUE,
    width_px INTEGER, height_px INTEGER, mode TEXT, format TEXT,
    position INTEGER,           -- of an accepted image in the pixel file, else NULL
    checksum INTEGER,           -- of its pixels
    descriptor BLOB,            -- int16, see near_duplicates
    is_compared INTEGER NOT NULL DEFAULT 0,
    warning TEXT,               -- what is wrong with an accepted image
    rejection_code TEXT, rejection TEXT,
    decoder TEXT NOT NULL       -- DECODER_VERSION of the code that read it
);
CREATE TABLE files (
    path BLOB PRIMARY KEY,      -- relative to raw/, the file system's own bytes
    label TEXT NOT NULL,        -- a class; everything else is in `skipped_files`
    size_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
    content_id INTEGER NOT NULL REFERENCES contents
) WITHOUT ROWID;
CREATE INDEX files_by_content ON files (content_id);
CREATE INDEX contents_to_compare ON contents (content_id) WHERE is_compared = 0 AND descriptor IS NOT NULL;
CREATE UNIQUE INDEX contents_by_position ON contents (position) WHERE position IS NOT NULL;
CREATE INDEX contents_by_decoder ON contents (decoder);
CREATE TABLE pairs (first_id INTEGER NOT NULL, second_id INTEGER NOT NULL, PRIMARY KEY (first_id, second_id))
    WITHOUT ROWID;
CREATE TABLE state (
    fingerprint TEXT            -- of the published table, NULL while that does not show all that is stored
);
INSERT INTO state VALUES (NULL);
CREATE TABLE skipped_files (path BLOB PRIMARY KEY, code TEXT NOT NULL, reason TEXT NOT NULL,
    num_files INTEGER NOT NULL) WITHOUT ROWID;
"""
_COLUMNS: Final = ("content_hash", "width_px", "height_px", "mode", "format", "warning", "rejection_code", "rejection")


class Store:
    """The tables in `catalogue/images.sqlite`. Use it as a context manager.

    Raises:
        UnusableDataError: the file is damaged, cannot be written, or has an unknown schema.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._connection = sqlite3.connect(path, timeout=60, isolation_level=None)
        self._pixel_file = PixelFile(path.with_name(PIXELS_NAME))
        self._num_known = self._num_met = 0
        try:
            self._prepare()
        except BaseException as error:
            self._close(error)
            raise

    def _prepare(self) -> None:
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        if self._version() == _SCHEMA_VERSION:
            return
        with self.transaction():
            # A second process may have created the tables while this one waited for the lock.
            version = self._version()
            if version == 0:
                for statement in _SCHEMA.split(";\n"):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            elif version != _SCHEMA_VERSION:
                raise UnusableDataError(
                    f"{self._path} has schema version {version}; this code reads {_SCHEMA_VERSION}. {self._remedy}"
                )

    def _version(self) -> int:
        return int(self._select_one("PRAGMA user_version"))

    def _select_one(self, query: str, *parameters: Any) -> Any:
        """Return the first column of the first row, or None."""
        row = self._connection.execute(query, parameters).fetchone()
        return row[0] if row else None

    @property
    def _remedy(self) -> str:
        return f"Move the folder {self._path.parent} away: the next run of raw_images rebuilds it from raw/."

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(error)

    def _close(self, error: BaseException | None) -> None:
        self._connection.close()
        # Its subclasses report locks and full disks.
        if type(error) is sqlite3.DatabaseError:
            raise UnusableDataError(f"{self._path} is damaged ({error}). {self._remedy}") from error
        is_full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        if is_full or isinstance(error, sqlite3.OperationalError):
            free = shutil.disk_usage(self._path.parent).free
            raise UnusableDataError(
                f"{self._path} cannot be written ({error}); {free:,} bytes are free. Make room or let this user write "
                "there, and run again: what was read stays."
            ) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything inside at once, or nothing."""
        self._connection.execute("BEGIN IMMEDIATE")
        with self._connection:  # commits, or rolls back
            yield

    def begin_scan(self) -> None:
        """Start counting the files of a walk, which `match_known` and `has_missing_files` compare with those stored.

        Files whose content another decoder has read count as changed, because the service decodes as this code does.
        """
        self._num_known = self._select_one("SELECT count(*) FROM files")
        self._num_met = 0
        with self.transaction():
            if self._connection.execute("DELETE FROM skipped_files").rowcount:
                self._connection.execute("UPDATE state SET fingerprint = NULL")
            self._connection.execute(
                "UPDATE files SET mtime_ns = -1"
                " WHERE content_id IN (SELECT content_id FROM contents WHERE decoder < ? OR decoder > ?)",
                (DECODER_VERSION, DECODER_VERSION),
            )

    def has_outdated_decoder(self) -> bool:
        """Return whether any file's content was read by another decoder than this code's."""
        query = (
            "SELECT 1 FROM contents WHERE (decoder < ? OR decoder > ?)"
            " AND content_id IN (SELECT content_id FROM files) LIMIT 1"
        )
        return bool(self._select_one(query, DECODER_VERSION, DECODER_VERSION))

    def match_known(self, files: list[SourceFile]) -> list[SourceFile]:
        """Return the files that are new or changed in label, size, time or inode."""
        marks = ",".join("?" * len(files))
        rows = self._connection.execute(
            f"SELECT path, label, size_bytes, mtime_ns, inode FROM files WHERE path IN ({marks})",  # noqa: S608 -- only question marks
            [file.path for file in files],
        ).fetchall()
        self._num_met += len(rows)
        # A row is equal to the SourceFile of the same values.
        known = set(rows)
        return [file for file in files if file not in known]

    def has_missing_files(self) -> bool:
        """Return whether the walk met fewer files than were known before it."""
        return self._num_met < self._num_known

    def drop_missing(self, batches: Iterable[Iterable[bytes]], unreadable_folders: Collection[bytes]) -> int:
        """Drop every file whose path is not in `batches`, and return their number.

        Files in `unreadable_folders`, which may grow while `batches` is read, stay if this decoder has read them.
        """
        with self.transaction():
            self._connection.execute("CREATE TEMP TABLE present (path BLOB PRIMARY KEY) WITHOUT ROWID")
            for paths in batches:
                self._connection.executemany(
                    "INSERT OR IGNORE INTO temp.present VALUES (?)", ((path,) for path in paths)
                )
            for folder in unreadable_folders:
                self._connection.execute(
                    "INSERT OR IGNORE INTO temp.present SELECT path FROM files JOIN contents USING (content_id)"
                    " WHERE substr(path, 1, ?) = ? AND decoder = ?",
                    (len(folder) + 1, folder + b"/", DECODER_VERSION),
                )
            num_removed = self._connection.execute(
                "DELETE FROM files WHERE path NOT IN (SELECT path FROM temp.present)"
            ).rowcount
            self._connection.execute("DROP TABLE temp.present")
            if num_removed:
                self._connection.execute("UPDATE state SET fingerprint = NULL")
        return num_removed

    def mark_published(self, fingerprint: str) -> None:
        """Record that the published table shows everything that is stored."""
        self._connection.execute("UPDATE state SET fingerprint = ?", (fingerprint,))

    def published_fingerprint(self) -> str | None:
        """Return the fingerprint of the published table; None if the last ingest was interrupted."""
        fingerprint: str | None = self._select_one("SELECT fingerprint FROM state")
        return fingerprint

    def add(self, entries: list[tuple[SourceFile, DecodedContent]], descriptors: dict[str, bytes]) -> None:
        """Store files with their contents in one transaction; contents that this decoder has read before stay.

        `descriptors` are those of the accepted contents, by hash. Only one process at a time may add.
        """
        fresh = {content.content_hash: content for _, content in entries if content.is_new}
        images = {name: content.pixels for name, content in fresh.items() if content.pixels is not None}
        # In this form the index of positions is used; an expression would scan all contents.
        last = self._select_one("SELECT max(position) FROM contents WHERE position IS NOT NULL")
        first = 0 if last is None else int(last) + 1
        self._pixel_file.write(first, list(images.values()))
        positions = {name: first + number for number, name in enumerate(images)}
        columns = attrgetter(*_COLUMNS)
        checksums = {name: zlib.crc32(pixels) for name, pixels in images.items()}
        contents = (
            (*columns(content), positions.get(name), checksums.get(name), descriptors.get(name), DECODER_VERSION)
            for name, content in fresh.items()
        )
        files = ((*file, content.content_hash) for file, content in entries)
        with self.transaction():
            self._connection.executemany(
                "INSERT INTO contents (content_hash, width_px, height_px, mode, format, warning, rejection_code,"
                " rejection, position, checksum, descriptor, decoder) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                # Equal pixels stay where they are, and known near-duplicates stay known.
                " ON CONFLICT (content_hash) DO UPDATE SET width_px = excluded.width_px,"
                " height_px = excluded.height_px, mode = excluded.mode, format = excluded.format,"
                " warning = excluded.warning,"
                " position = iif(checksum = excluded.checksum, position, excluded.position),"
                " checksum = excluded.checksum, is_compared = is_compared AND descriptor IS excluded.descriptor,"
                " descriptor = excluded.descriptor, rejection_code = excluded.rejection_code,"
                " rejection = excluded.rejection, decoder = excluded.decoder WHERE decoder != excluded.decoder",
                contents,
            )
            self._connection.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?,"
                " (SELECT content_id FROM contents WHERE content_hash = ?))",
                files,
            )
            self._connection.execute("UPDATE state SET fingerprint = NULL")

    def sync(self) -> None:
        """Make what was added survive a power cut."""
        self._pixel_file.sync()

    def add_skipped(self, skipped_files: Collection[SkippedFile]) -> None:
        """Store skipped files, and remove them from the usable ones."""
        paths = [(skipped.path,) for skipped in skipped_files]
        with self.transaction():
            self._connection.executemany("INSERT OR REPLACE INTO skipped_files VALUES (?, ?, ?, ?)", skipped_files)
            self._connection.executemany("DELETE FROM files WHERE path = ?", paths)
            self._connection.execute("UPDATE state SET fingerprint = NULL")

    def has_uncompared(self) -> bool:
        """Return whether any file's content was not compared with the others yet."""
        query = (
            "SELECT 1 FROM contents WHERE is_compared = 0 AND descriptor IS NOT NULL"
            " AND content_id IN (SELECT content_id FROM files) LIMIT 1"
        )
        return bool(self._select_one(query))

    def num_compared(self) -> int:
        """Count the contents that were compared with the others."""
        return int(self._select_one("SELECT count(*) FROM contents WHERE is_compared"))

    def descriptors(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int16], npt.NDArray[np.bool_]]:
        """Return content ids, descriptors (content, feature), and whether each was compared with all others.

        Contents that were never compared and whose files are gone are left out until a file comes back.
        """
        rows = self._connection.execute(
            "SELECT content_id, descriptor, is_compared FROM contents WHERE descriptor IS NOT NULL"
            " AND (is_compared OR content_id IN (SELECT content_id FROM files)) ORDER BY content_id"
        )
        ids: list[int] = []
        compared: list[bool] = []
        vectors = bytearray()
        for content_id, descriptor, is_compared in rows:
            ids.append(content_id)
            vectors += descriptor
            compared.append(bool(is_compared))
        matrix = np.frombuffer(vectors, dtype=np.int16).reshape(len(ids), -1 if ids else 0)
        return np.array(ids, dtype=np.int64), matrix, np.array(compared, dtype=np.bool_)

    def add_pairs(self, pairs: Iterable[tuple[int, int]], compared_ids: Iterable[int]) -> None:
        """Store near-duplicate pairs and mark `compared_ids` as compared, in one transaction."""
        with self.transaction():
            self._connection.executemany("INSERT OR IGNORE INTO pairs VALUES (?, ?)", pairs)
            self._connection.executemany(
                "UPDATE contents SET is_compared = 1 WHERE content_id = ?", ((int(i),) for i in compared_ids)
            )

    def pairs(self) -> npt.NDArray[np.int64]:
        """Return the near-duplicate pairs of accepted contents, with or without files, as ids, int64 (pair, 2)."""
        rows = self._connection.execute(
            "SELECT first_id, second_id FROM pairs JOIN contents a ON a.content_id = first_id"
            " JOIN contents b ON b.content_id = second_id WHERE a.descriptor IS NOT NULL AND b.descriptor IS NOT NULL"
        ).fetchall()
        return np.array(rows, dtype=np.int64).reshape(-1, 2)

    def drop_outdated_pairs(self) -> None:
        """Remove the pairs of contents that must be compared again because the decoder has changed."""
        self._connection.execute(
            "DELETE FROM pairs WHERE first_id IN (SELECT content_id FROM contents WHERE is_compared = 0)"
            " OR second_id IN (SELECT content_id FROM contents WHERE is_compared = 0)"
        )

    def num_pairs(self) -> int:
        """Count the pairs of near-duplicates among the contents of files."""
        query = (
            "SELECT count(*) FROM pairs WHERE first_id IN (SELECT content_id FROM files)"
            " AND second_id IN (SELECT content_id FROM files)"
        )
        return int(self._select_one(query))

    def find_path(self, content_id: int) -> bytes:
        """Return the path of a file with this content, relative to raw/; empty if there is none."""
        return self._select_one("SELECT path FROM files WHERE content_id = ? ORDER BY path LIMIT 1", content_id) or b""

    def labelled_contents(self) -> list[tuple[str, str, int]]:
        """Return hash, label and pixel checksum of every accepted content, once for each of its labels."""
        return self._connection.execute(
            "SELECT DISTINCT c.content_hash, f.label, c.checksum"
            " FROM contents c JOIN files f USING (content_id) WHERE c.position IS NOT NULL"
            " ORDER BY c.content_hash, f.label"
        ).fetchall()

    def labelled_files(self) -> Iterator[tuple[int, str, bytes]]:
        """Yield content id, label and path of every file whose content is accepted."""
        return self._connection.execute(
            "SELECT f.content_id, f.label, f.path FROM files f JOIN contents c USING (content_id)"
            " WHERE c.position IS NOT NULL"
        )

    def labels(self) -> set[str]:
        """Return the labels of all files."""
        return {label for (label,) in self._connection.execute("SELECT DISTINCT label FROM files")}

    def file_contents(self) -> Iterator[tuple[bytes, int]]:
        """Yield path and content id of every file."""
        return self._connection.execute("SELECT path, content_id FROM files")

    def hashes_by_id(self) -> dict[int, str]:
        """Return the hash of every accepted content ever seen, by content id."""
        return dict(
            self._connection.execute("SELECT content_id, content_hash FROM contents WHERE descriptor IS NOT NULL")
        )

    def read_pixels(self, content_hashes: Iterable[str]) -> Pixels:
        """Return the pixels of accepted contents in the given order, uint8 (image, row, column).

        Raises:
            UnusableDataError: the pixel file is damaged.
        """
        query = "SELECT position, checksum FROM contents WHERE content_hash = ?"
        rows = [self._connection.execute(query, (name,)).fetchone() for name in content_hashes]
        positions = np.array([position for position, _ in rows], dtype=np.int64)
        return self._pixel_file.read(positions, [checksum for _, checksum in rows])

    def file_rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield path, label, size_bytes, content hash, width, height, mode, format, warning, code, rejection, id."""
        return self._connection.execute(
            "SELECT f.path, f.label, f.size_bytes, c.content_hash, c.width_px, c.height_px, c.mode, c.format,"
            " c.warning, c.rejection_code, c.rejection, c.content_id"
            " FROM files f JOIN contents c USING (content_id) ORDER BY f.path"
        )

    def skipped_files(self) -> list[tuple[bytes, str, str, int]]:
        """Return path, code, reason and number of files of everything under raw/ that was skipped."""
        return self._connection.execute(
            "SELECT path, code, reason, num_files FROM skipped_files ORDER BY path"
        ).fetchall()
