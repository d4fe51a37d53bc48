"""Labelled images in object storage: list them like folders, and read many at a time."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Final, NamedTuple

from emotion_assets.core.remote import first_line, open_store, plain_tag

_NUM_AT_ONCE: Final = 32
"""Each request waits for tens of milliseconds, most of them for the storage."""


class Status(NamedTuple):
    """What a file system would know about an object; a new version of it gets another inode."""

    st_size: int
    st_mtime_ns: int
    st_ino: int
    st_mode: int = stat.S_IFREG


class RemoteEntry(NamedTuple):
    """An object, or a common prefix of several, with the methods of `os.DirEntry` that a scan uses."""

    name: bytes
    status: Status | None = None
    """None for a folder."""

    def is_dir(self, *, follow_symlinks: bool) -> bool:  # noqa: ARG002 -- as os.DirEntry
        """Return whether it is a folder."""
        return self.status is None

    def is_file(self, *, follow_symlinks: bool) -> bool:  # noqa: ARG002 -- as os.DirEntry
        """Return whether it is an object."""
        return self.status is not None

    def is_symlink(self) -> bool:
        """Return False: object storage has no links."""
        return False

    def stat(self, *, follow_symlinks: bool) -> Status:  # noqa: ARG002 -- as os.DirEntry
        """Return size, time and version of an object."""
        assert self.status
        return self.status


class RemoteSource:
    """The images below an address such as `s3://bucket/path/raw`."""

    def __init__(self, url: str) -> None:
        """Open the address; nothing is requested yet."""
        self._store = open_store(url)

    def scandir(self, folder: bytes) -> Iterator[RemoteEntry]:
        """Return what is in a folder, relative to the address.

        Raises:
            OSError: the storage does not respond, or refuses.
        """
        prefix = os.fsdecode(folder) or None
        try:
            return _entries(prefix, self._store.list_with_delimiter(prefix))
        except Exception as error:
            raise OSError(None, first_line(error), prefix) from error

    def read(self, paths: Sequence[bytes]) -> list[tuple[bytes, Status] | OSError]:
        """Return content and status of each object, or why there is none."""
        with ThreadPoolExecutor(min(_NUM_AT_ONCE, len(paths) or 1)) as pool:
            return list(pool.map(self._read, paths))

    def _read(self, path: bytes) -> tuple[bytes, Status] | OSError:
        try:
            found = self._store.get(os.fsdecode(path))
            return bytes(found.bytes()), describe(found.meta)
        except FileNotFoundError as error:
            return error
        except Exception as error:  # noqa: BLE001 -- obstore has an error class for each kind of storage
            return OSError(None, first_line(error), os.fsdecode(path))


def _entries(prefix: str | None, found: Any) -> Iterator[RemoteEntry]:
    markers = {prefix, *found["common_prefixes"]}  # empty objects, by which some tools remember a folder
    for path in found["common_prefixes"]:
        yield RemoteEntry(os.fsencode(path.rpartition("/")[2]))
    for each in (each for each in found["objects"] if each["path"] not in markers):
        yield RemoteEntry(os.fsencode(each["path"].rpartition("/")[2]), describe(each))


@lru_cache(maxsize=4)
def open_source(url: str) -> RemoteSource:
    """Return the source of an address, one for each process, so that connections are reused."""
    return RemoteSource(url)


def describe(meta: Any) -> Status:
    """Return the status of an object from obstore's metadata."""
    version = plain_tag(meta["e_tag"]).encode()  # a version is known after reading, but not from a listing
    moment = meta["last_modified"].timestamp()
    return Status(int(meta["size"]), round(moment * 1e9), zlib.crc32(version) << 32 | zlib.adler32(version))
