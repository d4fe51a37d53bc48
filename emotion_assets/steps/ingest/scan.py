"""Walk `raw/` without opening a file: its images, everything that is skipped, and a signature of its state.

Links are not followed, so nothing outside the tree is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from enum import StrEnum
from itertools import filterfalse
from pathlib import Path
from typing import Any, Final, NamedTuple

from emotion_assets.core.classes import DEFAULT_CLASSES, ClassSet
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.layout import is_feedback_image
from emotion_assets.core.remote import is_remote
from emotion_assets.steps.ingest.remote_source import RemoteEntry, open_source

_ARCHIVE_SUFFIXES: Final = (b".zip", b".tar", b".tgz", b".gz", b".bz2", b".xz", b".7z", b".rar")
_UNFINISHED_SUFFIXES: Final = (b".part", b".partial", b".tmp", b".crdownload", b".download")
_TABLE_SUFFIXES: Final = (b".csv", b".parquet")
_JUNK_NAMES: Final = frozenset(
    (
        b"thumbs.db",
        b"ehthumbs.db",
        b"desktop.ini",
        b"icon\r",
        b"__macosx",
        b"@eadir",
        b"#recycle",
        b"$recycle.bin",
        b"system volume information",
        b"lost+found",
    )
)
_SUBJECTS: Final = b"subjects.csv"


class SkipCode(StrEnum):
    """Why a file or folder was skipped, before its content was decoded."""

    UNKNOWN_FOLDER = "unknown_folder"
    OTHER_CLASS = "other_class"
    CONTRADICTORY_FOLDERS = "contradictory_folders"
    UNLABELLED_FILE = "unlabelled_file"
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
    """A regular file below a folder that names a class, as the scan saw it. A tuple, because there are many."""

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
    signature_without_feedback: str
    """Without the images that people labelled through the service."""
    num_files: int


class SkippedFile(NamedTuple):
    """A file or folder that cannot be used, or the first of several files of a folder."""

    path: bytes
    code: SkipCode
    reason: str
    num_files: int = 1


_Entry = os.DirEntry[bytes] | RemoteEntry


class _Place(NamedTuple):
    """What the folders above a file say about its class."""

    label: str | None = None
    folder: str = ""
    """The one that names the class."""
    problem: tuple[SkipCode, str] | None = None


class FolderScan:
    """One walk over `raw_dir`: iterate once, then read the state.

    The class of a file is that of the nearest folder above it that names one; folders that name none, such as `train`
    or `images`, are walked through. Litter of operating systems is passed over. `raw_dir` is a folder, which may be
    missing, or an address in object storage.
    """

    def __init__(self, raw_dir: Path | str, classes: ClassSet = DEFAULT_CLASSES) -> None:
        self._root, self._classes = os.fspath(raw_dir), classes
        self._sum = self._sum_without_feedback = self._num_files = 0

    @property
    def state(self) -> FolderState:
        """What the walk saw; complete once the iteration has ended."""
        every, without_feedback = (f"{total % 2**128:032x}" for total in (self._sum, self._sum_without_feedback))
        return FolderState(every, without_feedback, self._num_files)

    def __iter__(self) -> Iterator[SourceFile | SkippedFile]:
        yield from self._scan_folder(b"", _Place())

    def _scan_folder(self, folder: bytes, place: _Place) -> Iterator[SourceFile | SkippedFile]:
        try:
            entries = self._list(folder)
        except FileNotFoundError:
            return  # removed since its parent was listed
        except OSError as error:
            yield self._skip_folder(folder, error)
            return
        unlabelled: list[bytes] = []
        prefix = folder + b"/" if folder else b""
        with contextlib.closing(entries):
            for entry in filterfalse(
                lambda entry: is_junk_name(entry.name) or prefix + entry.name == _SUBJECTS, entries
            ):
                path = prefix + entry.name
                try:
                    if entry.is_dir(follow_symlinks=False):
                        yield from self._scan_folder(path, self._enter(place, entry.name))
                    elif skipped := _skip(path, entry):
                        yield skipped
                    elif place.label is None or place.problem:
                        unlabelled.append(path)
                    else:
                        yield self._describe_file(path, place.label, entry)
                except FileNotFoundError:
                    continue  # removed since the folder was listed
                except OSError as error:
                    yield skip_for_error(path, "file", error)
        if unlabelled:
            code, reason = place.problem or (SkipCode.UNLABELLED_FILE, self._advise())
            yield SkippedFile(min(unlabelled), code, reason, len(unlabelled))

    def _list(self, folder: bytes) -> Any:
        """Return the entries of a folder as an iterator that can be closed."""
        if is_remote(self._root):
            return open_source(self._root).scandir(folder)
        return os.scandir(os.path.join(os.fsencode(self._root), folder))

    def _skip_folder(self, folder: bytes, error: OSError) -> SkippedFile:
        skipped = skip_for_error(folder, "folder", error)
        if is_remote(self._root):
            advice = "Try again later; if a key has // or .. in it, rename that object."
            reason = f"The folder cannot be listed ({error.strerror}). {advice}"
            skipped = SkippedFile(folder, SkipCode.FAILED_READ, reason)
        if not folder:
            # Without its list, every image would count as removed.
            raise UnusableDataError(f"{self._root}: {skipped.reason}") from error
        return skipped

    def _enter(self, place: _Place, name: bytes) -> _Place:
        """Return what is known about the class of files in a folder of this name."""
        folder = name.decode("utf-8", "backslashreplace")
        label = self._classes.find(folder)
        is_other = label is None and self._classes.names_other_class(folder)
        above_is_other = place.problem is not None and place.problem[0] == SkipCode.OTHER_CLASS
        if (label or is_other) and (above_is_other or place.label not in {None, label}):
            reason = f"The folder {folder} is inside {place.folder}, so the class is unclear. Move it out."
            return place._replace(problem=(SkipCode.CONTRADICTORY_FOLDERS, reason))
        if label:
            is_unclear = place.problem is not None and place.problem[0] == SkipCode.CONTRADICTORY_FOLDERS
            return _Place(label, folder, place.problem if is_unclear else None)
        if is_other:
            reason = (
                f"The folder {folder} is none of the classes ({self._classes}). To train it, list it in classes.yaml."
            )
            return _Place(None, folder, (SkipCode.OTHER_CLASS, reason))
        if place.label is None and place.problem is None and (closest := self._classes.closest(folder)):
            reason = f"The folder {folder} resembles {closest}. If it is that, rename it or list it in classes.yaml."
            return place._replace(problem=(SkipCode.UNKNOWN_FOLDER, reason))
        return place

    def _advise(self) -> str:
        return (
            f"No folder above it names a class ({self._classes}). Put images into folders that are named after their "
            "class, or list the folder in classes.yaml."
        )

    def _describe_file(self, path: bytes, label: str, entry: _Entry) -> SourceFile:
        status = entry.stat(follow_symlinks=False)
        values = (path, label.encode(), status.st_size, status.st_mtime_ns, status.st_mode)
        state = b"%b\0%b\0%d\0%d\0%d" % values
        # A sum does not depend on the order in which the file system lists a folder.
        number = int.from_bytes(hashlib.blake2b(state, digest_size=16).digest())
        self._sum += number
        self._sum_without_feedback += 0 if is_feedback_image(path) else number
        self._num_files += 1
        return SourceFile(path, label, status.st_size, to_int64(status.st_mtime_ns), to_int64(status.st_ino))


def folder_state(raw_dir: Path | str, classes: ClassSet = DEFAULT_CLASSES) -> FolderState:
    """Return the state of a folder, from names, sizes, times and permissions only."""
    scan = FolderScan(raw_dir, classes)
    for _ in scan:
        pass
    return scan.state


def is_junk_name(name: bytes) -> bool:
    """Return whether an operating system or a tool left a file or folder of this name behind."""
    return name.startswith(b".") or name.lower() in _JUNK_NAMES


def to_int64(number: int) -> int:
    """Fold a date or inode number of any file system into 64 bits with a sign, as SQLite stores them."""
    return (number + 2**63) % 2**64 - 2**63


def skip_for_error(path: bytes, kind: str, error: OSError) -> SkippedFile:
    """Explain why a file or folder could not be read, and whether the next run tries again."""
    code, advice = SkipCode.FAILED_READ, "The next run tries again; check the disk."
    if isinstance(error, PermissionError):
        code, advice = SkipCode.UNREADABLE, "Check its permissions."
    return SkippedFile(path, code, f"The {kind} cannot be read ({error.strerror}). {advice}")


def _skip(path: bytes, entry: _Entry) -> SkippedFile | None:
    """Return why an entry that is no folder is skipped by its kind or name, or None."""
    name = entry.name.lower()
    if entry.is_symlink():
        reason = "Links are not followed. Copy the file or folder here instead."
        return SkippedFile(path, SkipCode.SYMBOLIC_LINK, reason)
    if name.endswith(_UNFINISHED_SUFFIXES):
        reason = "The name says that it is still being copied. It is read once it is renamed."
        return SkippedFile(path, SkipCode.UNFINISHED_COPY, reason)
    if not entry.is_file(follow_symlinks=False):
        return SkippedFile(path, SkipCode.NOT_A_FILE, "This is a pipe, socket or device. Remove it.")
    if name.endswith((*_ARCHIVE_SUFFIXES, *_TABLE_SUFFIXES)):
        return SkippedFile(path, SkipCode.PACKED_ARCHIVE, _explain_packed(name))
    return None


def _explain_packed(name: bytes) -> str:
    """Return what to do with an archive or table of this name, in lower case."""
    if name == _SUBJECTS:
        return "A table of subjects is only read as raw/subjects.csv or as subjects.csv in the data root. Move it."
    if name.endswith(b".parquet"):
        return "Parquet is not read. Save its images as files below raw/<Class>/, and move it out of raw/."
    return "Archives and tables are not read here. Move it out of raw/ and run `make import FILE=…`."
