"""Look through `raw/`: which files there are, what is odd, and whether anything has changed. Nothing is opened.

Links are not followed, so nothing outside the tree is seen.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from emotion_assets.core.classes import EMOTIONS, emotion_from_folder
from emotion_assets.steps.ingest.decode_pool import SkippedFile, SourceFile, unreadable

_Looked = tuple[SourceFile, os.stat_result]
_ARCHIVE_SUFFIXES: Final = (b".zip", b".tar", b".tgz", b".gz", b".bz2", b".xz", b".7z", b".rar")
_UNFINISHED_SUFFIXES: Final = (b".part", b".partial", b".tmp", b".crdownload", b".download")
_SYSTEM_FILES: Final = (b"thumbs.db", b"desktop.ini")


def walk(raw_dir: Path) -> Iterator[SourceFile | SkippedFile]:
    """Yield every file below `raw_dir`: labelled regular files, and (path, code, reason) for all else."""
    for entry in _walk(raw_dir):
        yield entry[0] if len(entry) == 2 else entry


def _walk(raw_dir: Path) -> Iterator[_Looked | SkippedFile]:
    root = os.fsencode(raw_dir)
    for top in sorted(os.scandir(root), key=lambda entry: entry.name):
        if not top.is_dir(follow_symlinks=False):
            yield top.name, *_skip_reason(top)
            continue
        label = emotion_from_folder(os.fsdecode(top.name))
        if label is None:
            yield (
                top.name,
                "unknown_folder",
                f"The folder stands for none of {', '.join(EMOTIONS)}; nothing in it is used. Rename or remove it.",
            )
            continue
        yield from _walk_folder(root, top.name, label)


def _walk_folder(root: bytes, folder: bytes, label: str) -> Iterator[_Looked | SkippedFile]:
    try:
        entries = os.scandir(os.path.join(root, folder))
    except FileNotFoundError:
        return  # vanished between listing and looking
    except OSError as error:
        yield unreadable(folder, "folder", error)
        return
    with entries:
        for entry in entries:
            path = b"%b/%b" % (folder, entry.name)
            try:
                if entry.name.startswith(b".") or entry.name.lower() in _SYSTEM_FILES:
                    yield (
                        path,
                        "system_file",
                        "What is hidden is skipped: programs keep their own so, and temporary files.",
                    )
                elif entry.is_dir(follow_symlinks=False):
                    yield from _walk_folder(root, path, label)
                elif entry.name.lower().endswith(_UNFINISHED_SUFFIXES):
                    yield path, "unfinished_copy", "The name says that it is still being copied. It waits."
                elif entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    yield SourceFile(path, label, status.st_size, status.st_mtime_ns, status.st_ino), status
                else:
                    yield path, *_skip_reason(entry)
            except FileNotFoundError:
                continue  # vanished between listing and looking: it is not there any more
            except OSError as error:
                yield unreadable(path, "file", error)


def _skip_reason(entry: os.DirEntry[bytes]) -> tuple[str, str]:
    if entry.is_symlink():
        return "symbolic_link", "Links are not followed. Copy the file or folder here instead."
    if not entry.is_file(follow_symlinks=False):
        return "not_a_file", "This is a pipe, socket or device. Remove it."
    if entry.name.lower().endswith(_ARCHIVE_SUFFIXES):
        return "packed_archive", "Archives are not unpacked. Unpack it into the emotions' folders."
    return "unlabelled_file", f"The file lies in no emotion's folder ({', '.join(EMOTIONS)}). Move it into one."


def folder_signature(raw_dir: Path, without: str = "") -> tuple[str, int]:
    """Look at names, sizes and times only, for a sensor that must be quick; skip `<Emotion>/<without>/`.

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
