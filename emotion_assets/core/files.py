"""Atomic writes, file locks, listings, hashes and tables."""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import glob
import hashlib
import itertools
import json
import logging
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO

from emotion_assets.core.errors import UnusableDataError

_logger = logging.getLogger(__name__)

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EBADF})
_unsynced_devices: set[int] = set()


@contextlib.contextmanager
def atomic_file(path: Path, *, is_synced: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` if the block succeeds; an error or a kill leaves `path` as it is.

    Folders are created on demand. If it is not synced, the file may be missing after a power cut.

    Raises:
        OSError: the disk is full or read-only; the message names the path, the bytes written and those free.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            if is_synced:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        described = _describe_full_disk(error, temporary, path) if isinstance(error, OSError) else None
        with contextlib.suppress(OSError):
            temporary.unlink()
        if described:
            raise described from error
        raise
    if is_synced:
        sync_folder(path.parent)


def _describe_full_disk(error: OSError, temporary: Path, path: Path) -> OSError | None:
    if error.errno not in _FULL:
        return None
    try:
        written, free = temporary.stat().st_size, shutil.disk_usage(path.parent).free
    except OSError:
        return None
    text = f"{error.strerror} after {written:,} bytes, {free:,} are free. Make room, or use another data root"
    return OSError(error.errno, text, str(path))


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write `content` (text as UTF-8) to `path` as `atomic_file` does."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with `write_atomically`; NaN is rejected, as JSON has none."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def remove_temporary_files(folder: Path) -> None:
    """Remove what killed processes left of atomic writes below `folder`; nobody may be writing there now."""
    for path in folder.rglob(".*.tmp"):
        path.unlink(missing_ok=True)


def files_below(folder: Path) -> list[Path]:
    """Return all regular files below `folder`, sorted; links, and folders that cannot be read, are skipped."""
    found = []
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            with contextlib.suppress(OSError):
                if stat.S_ISREG(path.lstat().st_mode):
                    found.append(path)
    return sorted(found)


def list_files(root: Path, pattern: str) -> list[Path]:
    """Return the files below `root` that match a glob pattern, without hidden ones.

    A folder that vanishes meanwhile or may not be read counts as empty; `Path.glob` would raise.
    """
    return [root / name for name in glob.glob(pattern, root_dir=root)]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the exclusive lock `path`, after waiting for other holders; it is released if this process is killed.

    Raises:
        UnusableDataError: the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _logger.warning("Waiting for another run, which holds %s", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            raise UnusableDataError(
                f"{path.parent} is on a file system without locks ({error.strerror}), so two runs could damage each "
                "other's files. Put the data root on a local disk, or mount that file system with locks."
            ) from error
        yield


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut; warn once where the file system cannot."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        _warn_of_unsynced(os.fstat(descriptor).st_dev, folder, error.strerror)
    finally:
        os.close(descriptor)


def _warn_of_unsynced(device: int, folder: Path, reason: str | None) -> None:
    if device in _unsynced_devices:
        return
    _unsynced_devices.add(device)
    _logger.warning(
        "%s is on a file system that cannot flush folders (%s): after a power cut the newest files may be missing. "
        "Put the data root on a local disk if that matters.",
        folder,
        reason,
    )


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_version(*folders: Path) -> str:
    """Return 12 digits that change with the Python sources below `folders`, committed or not."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def csv_rows(file: TextIO, **options: Any) -> Iterator[list[str]]:
    """Yield the rows of a CSV file, `options` as for csv.reader.

    Its header tells the delimiter: where decimals have a comma, Excel separates columns by semicolons.
    """
    header = file.readline()
    yield from csv.reader(itertools.chain([header], file), delimiter=max(",;\t", key=header.count), **options)
