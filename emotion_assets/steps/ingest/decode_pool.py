"""Read and decode files in other processes that cost little to start and end with their parent.

A reader is a Python process that imports the core and nothing else: the standard pools import the parent's
main module again in every worker, which costs seconds under Dagster, and leave orphans when it is killed.
A request is one line of JSON; the answer is one line of JSON and the pixels of the accepted images behind it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from emotion_assets.core.errors import ImageError, ImageTooLargeError
from emotion_assets.core.images import DECODER_VERSION, IMAGE_SIZE_PX, MAX_IMAGE_BYTES, decode_image

_PIXEL_BYTES: Final = IMAGE_SIZE_PX**2
_PACKAGE_ROOT: Final = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class DecodedContent:
    """What became of the bytes of one file; `pixels` is None when it was rejected, or is known already."""

    content_hash: str
    width_px: int | None = None
    height_px: int | None = None
    mode: str | None = None
    format: str | None = None
    pixels: bytes | None = None
    """uint8 (row, column)."""
    rejection_code: str | None = None
    rejection: str | None = None

    @property
    def is_new(self) -> bool:
        """Whether the content was decoded or rejected now, rather than known before."""
        return self.format is not None or self.rejection is not None


class SourceFile(NamedTuple):
    """A regular file in a labelled folder, as it was when it was looked at. A tuple, because there are many."""

    path: bytes
    """Relative to raw/, the file system's own bytes."""
    label: str
    size_bytes: int
    mtime_ns: int
    inode: int


SkippedFile = tuple[bytes, str, str]
"""The path, code and reason of what cannot be used."""
Read = DecodedContent | SkippedFile
UNREADABLE: Final = "unreadable_file"
FAILED_READ: Final = "failed_read"
OUT_OF_MEMORY: Final = "out_of_memory"


def read_files(raw_dir: str, store_path: str, files: Iterable[SourceFile]) -> list[Read]:
    """Read `files` and decode those whose content the store does not hold as this decoder reads it.

    Returns:
        For each file its content (the bare hash if it is known), or an oddity if it could not be read.
    """
    root, files = os.fsencode(raw_dir), list(files)
    contents = [_read_file(root, file) for file in files]
    known = _known_hashes(store_path, (digest for digest, *_ in contents if isinstance(digest, str)))
    results: list[Read] = []
    for file, (digest, read) in zip(files, contents, strict=True):
        if digest is None:
            assert not isinstance(read, bytes)
            results.append(read)
        elif digest in known:
            results.append(DecodedContent(digest))
        else:
            assert isinstance(read, bytes)
            try:
                results.append(_decoded(digest, read))
            except MemoryError:
                reason = "There was no memory to decode it. The next run tries again."
                results.append((file.path, OUT_OF_MEMORY, reason))
                continue
            known.add(digest)
    return results


def _known_hashes(store_path: str, hashes: Iterable[str]) -> set[str]:
    # As an address, because a name may hold `?`, `#` or `%`.
    address = Path(store_path).absolute().as_uri() + "?mode=ro"
    with closing(sqlite3.connect(address, uri=True, timeout=60)) as connection:
        wanted = list(hashes)
        places = ",".join("?" * len(wanted))
        # The plus keeps SQLite from the index of decoders, which holds nearly everything.
        rows = connection.execute(
            f"SELECT content_hash FROM contents WHERE content_hash IN ({places}) AND +decoder = ?",  # noqa: S608 -- only question marks
            [*wanted, DECODER_VERSION],
        )
        return {digest for (digest,) in rows}


def _read_file(root: bytes, file: SourceFile) -> tuple[str, bytes] | tuple[None, Read]:
    """Return hash and bytes of a file, or None and why there are none."""
    if file.size_bytes > MAX_IMAGE_BYTES:
        # Not even hashed: it may be a sparse file of terabytes. Its size stands in for its content.
        return None, DecodedContent(
            f"size-{file.size_bytes}",
            rejection_code=ImageTooLargeError.code,
            rejection=f"The file has {file.size_bytes:,} bytes; at most {MAX_IMAGE_BYTES:,} are read.",
        )
    try:
        # Neither follows a link nor waits for a pipe that took the file's place.
        descriptor = os.open(os.path.join(root, file.path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None, (file.path, "vanished", "The file was removed while the folder was read.")
    except OSError as error:
        return None, unreadable(file.path, "file", error)
    try:
        content = os.read(descriptor, file.size_bytes + 1)
        status = os.fstat(descriptor)
    except OSError as error:
        return None, unreadable(file.path, "file", error)
    finally:
        os.close(descriptor)
    unchanged = (status.st_size, status.st_mtime_ns) == (file.size_bytes, file.mtime_ns)
    if not stat.S_ISREG(status.st_mode) or not unchanged or len(content) != file.size_bytes:
        return None, (file.path, "still_changing", "The file changed while it was read. The next run takes it.")
    return hashlib.sha256(content).hexdigest(), content


def unreadable(path: bytes, kind: str, error: OSError) -> SkippedFile:
    """Say why a file or folder could not be looked at, and whether that may pass by itself."""
    if isinstance(error, PermissionError):
        return path, UNREADABLE, f"The {kind} cannot be read ({error.strerror}). Check its permissions."
    return path, FAILED_READ, f"The {kind} cannot be read ({error.strerror}). The next run tries again; check the disk."


def _decoded(digest: str, content: bytes) -> DecodedContent:
    try:
        image = decode_image(content)
    except ImageError as error:
        return DecodedContent(digest, rejection_code=error.code, rejection=str(error))
    return DecodedContent(digest, image.width_px, image.height_px, image.mode, image.format, image.pixels.tobytes())


class WorkerDiedError(Exception):
    """A reader process ended before it answered: it was killed, most likely for want of memory."""


class DecodePool:
    """Some reader processes; `read` may be called from as many threads, `close` ends them."""

    def __init__(self, num_readers: int, raw_dir: str, store_path: str) -> None:
        """Start `num_readers` processes."""
        command = [sys.executable, "-m", __name__, raw_dir, store_path]
        environment = os.environ | {"PYTHONPATH": str(_PACKAGE_ROOT), "OMP_NUM_THREADS": "1"}
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)  # noqa: S603 -- our own module
            for _ in range(num_readers)
        ]
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        for process in self._processes:
            self._idle.put(process)

    def read(self, files: tuple[SourceFile, ...]) -> list[Read]:
        """Do what `read_files` does, in another process.

        Raises:
            WorkerDiedError: that process died.
        """
        process = self._idle.get()
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(_line([[os.fsdecode(file.path), *file[1:]] for file in files]))
            process.stdin.flush()
            return _received(process.stdout)
        except (OSError, ValueError, EOFError) as error:
            raise WorkerDiedError from error
        finally:
            self._idle.put(process)

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            assert process.stdin
            assert process.stdout
            process.kill()
            with contextlib.suppress(BrokenPipeError):  # a request that a dead reader never took
                process.stdin.close()
            process.stdout.close()
            process.wait()


def _line(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _received(stream: BinaryIO | Any) -> list[Read]:
    results: list[Read] = []
    for record in json.loads(stream.readline()):
        if isinstance(record, list):
            results.append((os.fsencode(record[0]), record[1], record[2]))
        else:
            has_pixels = record.pop("has_pixels")
            pixels: bytes | None = stream.read(_PIXEL_BYTES) if has_pixels else None
            if pixels is not None and len(pixels) != _PIXEL_BYTES:
                raise EOFError  # killed in mid-answer
            results.append(DecodedContent(**record, pixels=pixels))
    return results


def _sent(results: list[Read]) -> bytes:
    records: list[Any] = []
    pixels = []
    for result in results:
        if isinstance(result, DecodedContent):
            record = asdict(replace(result, pixels=None))
            del record["pixels"]
            records.append({**record, "has_pixels": result.pixels is not None})
            pixels.append(result.pixels or b"")
        else:
            records.append([os.fsdecode(result[0]), *result[1:]])
    return _line(records) + b"".join(pixels)


def main() -> None:
    """Answer requests until the parent closes the pipe, or is gone."""
    raw_dir, store_path = sys.argv[1:]
    for line in sys.stdin.buffer:
        files = [SourceFile(os.fsencode(path), *rest) for path, *rest in json.loads(line)]
        sys.stdout.buffer.write(_sent(read_files(raw_dir, store_path, files)))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
