"""Read files once, and decode the contents that the store does not hold. What is hashed is what is decoded."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from emotion_assets.core.errors import ImageError, ImageTooLargeError
from emotion_assets.core.images import DECODER_VERSION, MAX_IMAGE_BYTES, decode_image
from emotion_assets.core.remote import is_remote
from emotion_assets.steps.ingest.remote_source import Status, open_source
from emotion_assets.steps.ingest.scan import SkipCode, SkippedFile, SourceFile, skip_for_error, to_int64

_VANISHED: Final = "The file was removed while the folder was read."
_CHANGED: Final = "The file changed while it was read. The next run reads it again."


class DecodedContent(NamedTuple):
    """The bytes of one file: decoded, rejected, or only hashed because the store holds them already.

    A tuple, because processes send many to each other.
    """

    content_hash: str
    width_px: int | None = None
    height_px: int | None = None
    mode: str | None = None
    format: str | None = None
    pixels: bytes | None = None
    """uint8 (row, column)."""
    warning: str | None = None
    """What is wrong with an accepted image."""
    rejection_code: str | None = None
    rejection: str | None = None

    @property
    def is_new(self) -> bool:
        """Whether the content was decoded or rejected now, rather than known before."""
        return self.format is not None or self.rejection is not None


ReadResult = DecodedContent | SkippedFile


def read_files(raw_dir: str, store_path: str, files: Sequence[SourceFile]) -> list[ReadResult]:
    """Read each file of a batch, and decode it unless the store has its content from this decoder.

    An empty `store_path` is that of a host without a store, which decodes everything.
    """
    contents = _read_all(raw_dir, files)
    hashes = [hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else "" for content in contents]
    known = _known_hashes(store_path, hashes) if store_path else set()
    results: list[ReadResult] = []
    for file, content, content_hash in zip(files, contents, hashes, strict=True):
        if not isinstance(content, bytes):
            results.append(content)
        elif content_hash in known:
            results.append(DecodedContent(content_hash))
        else:
            try:
                results.append(_decode(content_hash, content))
                known.add(content_hash)
            except MemoryError:
                reason = "There was not enough memory to decode it. The next run tries again."
                results.append(SkippedFile(file.path, SkipCode.OUT_OF_MEMORY, reason))
    return results


def _known_hashes(store_path: str, hashes: Iterable[str]) -> set[str]:
    # As a URI, because a name may hold `?`, `#` or `%`.
    uri = Path(store_path).absolute().as_uri() + "?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=60)) as connection:
        wanted = list(hashes)
        marks = ",".join("?" * len(wanted))
        # The plus keeps SQLite off the index on decoder, which selects nearly every row.
        rows = connection.execute(
            f"SELECT content_hash FROM contents WHERE content_hash IN ({marks}) AND +decoder = ?",  # noqa: S608 -- only question marks
            [*wanted, DECODER_VERSION],
        )
        return {content_hash for (content_hash,) in rows}


def _read_all(raw_dir: str, files: Sequence[SourceFile]) -> list[bytes | ReadResult]:
    large = {file.path: _too_large(file) for file in files if file.size_bytes > MAX_IMAGE_BYTES}
    if not is_remote(raw_dir):
        root = os.fsencode(raw_dir)
        return [large.get(file.path) or _read_file(root, file) for file in files]
    small = [file for file in files if file.path not in large]
    objects = open_source(raw_dir).read([file.path for file in small])
    read = {file.path: _check_object(file, found) for file, found in zip(small, objects, strict=True)}
    return [large.get(file.path) or read[file.path] for file in files]


def _too_large(file: SourceFile) -> DecodedContent:
    # Not even hashed: it may be a sparse file of terabytes. Its size stands in for its content.
    return DecodedContent(
        f"size-{file.size_bytes}",
        rejection_code=ImageTooLargeError.code,
        rejection=f"The file has {file.size_bytes:,} bytes; at most {MAX_IMAGE_BYTES:,} are read.",
    )


def _check_object(file: SourceFile, found: tuple[bytes, Status] | OSError) -> bytes | ReadResult:
    if isinstance(found, FileNotFoundError):
        return SkippedFile(file.path, SkipCode.VANISHED, _VANISHED)
    if isinstance(found, OSError):
        return skip_for_error(file.path, "object", found)
    content, status = found
    is_listed = (status.st_size, to_int64(status.st_ino)) == (file.size_bytes, file.inode)
    return content if is_listed else SkippedFile(file.path, SkipCode.STILL_CHANGING, _CHANGED)


def _read_file(root: bytes, file: SourceFile) -> bytes | ReadResult:
    try:
        # Neither follows a link nor waits for a pipe that took the file's place.
        descriptor = os.open(os.path.join(root, file.path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            content = os.read(descriptor, file.size_bytes + 1)
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return SkippedFile(file.path, SkipCode.VANISHED, _VANISHED)
    except OSError as error:
        return skip_for_error(file.path, "file", error)
    is_unchanged = (status.st_size, to_int64(status.st_mtime_ns)) == (file.size_bytes, file.mtime_ns)
    if not stat.S_ISREG(status.st_mode) or not is_unchanged or len(content) != file.size_bytes:
        return SkippedFile(file.path, SkipCode.STILL_CHANGING, _CHANGED)
    return content


def _decode(content_hash: str, content: bytes) -> DecodedContent:
    try:
        image = decode_image(content)
    except ImageError as error:
        return DecodedContent(content_hash, rejection_code=error.code, rejection=str(error))
    return DecodedContent(
        content_hash, image.width_px, image.height_px, image.mode, image.format, image.pixels.tobytes(), image.warning
    )
