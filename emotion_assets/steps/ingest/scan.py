"""Walk `raw/` without opening a file: its images, everything that is skipped, and a signature of its state.

Links are not followed, so nothing outside the tree is read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

from emotion_assets.core.classes import EMOTIONS, emotion_from_folder
from emotion_assets.core.layout import FEEDBACK_IMAGES

_ARCHIVE_SUFFIXES: Final = (b".zip", b".tar", b".tgz", b".gz", b".bz2", b".xz", b".7z", b".rar")
_UNFINISHED_SUFFIXES: Final = (b".part", b".partial", b".tmp", b".crdownload", b".download")
_SYSTEM_FILES: Final = (b"thumbs.db", b"desktop.ini")
_FEEDBACK: Final = FEEDBACK_IMAGES.encode()


class SkipCode(StrEnum):
    """Why a file or folder was skipped, before its content was decoded."""

    UNKNOWN_FOLDER = "unknown_folder"
    UNLABELLED_FILE = "unlabelled_file"
    SYSTEM_FILE = "system_file"
    UNFINISHED_COPY = "unfinished_copy"
    PACKED_ARCHIVE = "packed_archive"
    SYMBOLIC_LINK = "symbolic_link"
    NOT_A_FILE = "not_a_file"
    UNREADABLE = "unreadable_file"
    FAILED_READ = "failed_read"
    VANISHED = "vanished"
    STILL_CHANGING = "still_changing"
    OUT_OF_MEMORY = "out_of_memory"


class SourceFile(NamedTuple):
    """A regular file in a labelled folder, as the scan saw it. A tuple, because there are many."""

    path: bytes
    """Relative to raw/, the file system's own bytes."""
    label: str
    size_bytes: int
    mtime_ns: int
    inode: int


class FolderState(NamedTuple):
    """The labelled files of `raw/`, reduced to hashes.

    A signature changes when a file is added, removed or changed, or gets other permissions.
    """

    signature: str
    own_signature: str
    """Without the images that people labelled through the service."""
    num_files: int


class SkippedFile(NamedTuple):
    """A file or folder that cannot be used."""

    path: bytes
    code: SkipCode
    reason: str


class FolderScan:
    """One walk over `raw_dir`: iterate once, then read the state.

    Args:
        raw_dir: one folder for each emotion; a missing folder counts as empty.
    """

    def __init__(self, raw_dir: Path) -> None:
        self._root = os.fsencode(raw_dir)
        self._sum = self._own_sum = self._num_files = 0

    @property
    def state(self) -> FolderState:
        """What the walk saw; complete once the iteration has ended."""
        signature, own_signature = (f"{total % 2**128:032x}" for total in (self._sum, self._own_sum))
        return FolderState(signature, own_signature, self._num_files)

    def __iter__(self) -> Iterator[SourceFile | SkippedFile]:
        if not os.path.isdir(self._root):
            return
        for top in sorted(os.scandir(self._root), key=lambda entry: entry.name):
            label = emotion_from_folder(os.fsdecode(top.name))
            if not top.is_dir(follow_symlinks=False):
                yield _skip(top.name, top)
            elif label is None:
                reason = f"The folder is not named after an emotion ({', '.join(EMOTIONS)}). Rename or remove it."
                yield SkippedFile(top.name, SkipCode.UNKNOWN_FOLDER, reason)
            else:
                yield from self._scan_folder(top.name, label)

    def _scan_folder(self, folder: bytes, label: str) -> Iterator[SourceFile | SkippedFile]:
        try:
            entries = os.scandir(os.path.join(self._root, folder))
        except FileNotFoundError:
            return  # removed since its parent was listed
        except OSError as error:
            yield skip_for_error(folder, "folder", error)
            return
        with entries:
            for entry in entries:
                path = b"%b/%b" % (folder, entry.name)
                try:
                    if entry.name.startswith(b".") or entry.name.lower() in _SYSTEM_FILES:
                        yield SkippedFile(path, SkipCode.SYSTEM_FILE, "Hidden and system files are skipped.")
                    elif entry.is_dir(follow_symlinks=False):
                        yield from self._scan_folder(path, label)
                    elif entry.name.lower().endswith(_UNFINISHED_SUFFIXES):
                        reason = "The name says that it is still being copied. It is read once it is renamed."
                        yield SkippedFile(path, SkipCode.UNFINISHED_COPY, reason)
                    elif entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        self._add_to_signature(path, status)
                        yield SourceFile(path, label, status.st_size, status.st_mtime_ns, status.st_ino)
                    else:
                        yield _skip(path, entry)
                except FileNotFoundError:
                    continue  # removed since the folder was listed
                except OSError as error:
                    yield skip_for_error(path, "file", error)

    def _add_to_signature(self, path: bytes, status: os.stat_result) -> None:
        state = b"%b\0%d\0%d\0%d" % (path, status.st_size, status.st_mtime_ns, status.st_mode)
        # A sum does not depend on the order in which the file system lists a folder.
        number = int.from_bytes(hashlib.blake2b(state, digest_size=16).digest())
        self._sum += number
        self._own_sum += 0 if path.split(b"/")[1] == _FEEDBACK else number
        self._num_files += 1


def folder_state(raw_dir: Path) -> FolderState:
    """Return the state of a folder, from names, sizes, times and permissions only."""
    scan = FolderScan(raw_dir)
    for _ in scan:
        pass
    return scan.state


def skip_for_error(path: bytes, kind: str, error: OSError) -> SkippedFile:
    """Explain why a file or folder could not be read, and whether the next run tries again."""
    if isinstance(error, PermissionError):
        reason = f"The {kind} cannot be read ({error.strerror}). Check its permissions."
        return SkippedFile(path, SkipCode.UNREADABLE, reason)
    reason = f"The {kind} cannot be read ({error.strerror}). The next run tries again; check the disk."
    return SkippedFile(path, SkipCode.FAILED_READ, reason)


def _skip(path: bytes, entry: os.DirEntry[bytes]) -> SkippedFile:
    if entry.is_symlink():
        reason = "Links are not followed. Copy the file or folder here instead."
        return SkippedFile(path, SkipCode.SYMBOLIC_LINK, reason)
    if not entry.is_file(follow_symlinks=False):
        return SkippedFile(path, SkipCode.NOT_A_FILE, "This is a pipe, socket or device. Remove it.")
    if entry.name.lower().endswith(_ARCHIVE_SUFFIXES):
        reason = "Archives are not unpacked. Unpack it into the emotions' folders."
        return SkippedFile(path, SkipCode.PACKED_ARCHIVE, reason)
    reason = f"The file is not in an emotion's folder ({', '.join(EMOTIONS)}). Move it into one."
    return SkippedFile(path, SkipCode.UNLABELLED_FILE, reason)
