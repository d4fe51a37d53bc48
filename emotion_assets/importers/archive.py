"""Unpack a zip or tar archive, or copy a folder, without trusting it.

No entry leads out of the target folder, links are left out, no header is believed about sizes, and an archive that
unpacks to far more than its own size is refused.
"""

from __future__ import annotations

import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Final

from tqdm import tqdm

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.images import MAX_IMAGE_BYTES
from emotion_assets.importers.importer import Importer
from emotion_assets.importers.table import TABLE_SUFFIX, import_table
from emotion_assets.steps.ingest.scan import is_junk_name

_MAX_EXPANSION: Final = 100
_UTF8_FLAG: Final = 0x800
_ENCODINGS: Final = ("utf-8", "cp437", "gb18030", "cp932", "big5", "cp949", "cp1252", "cp1256")
"""Of names in zip archives that do not tell: what programs write, then what Windows writes in some countries."""
_FREE_BYTES: Final = 100_000_000
"""Any archive may unpack to this, however small it is."""
_DAMAGES: Final = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError)

Entry = tuple[str, Callable[[], IO[bytes]]]
"""The path in the source, and how to open it."""


def import_archive(path: Path, importer: Importer) -> None:
    """Import the images of an archive, and those of tables of pixels in it.

    Raises:
        UnusableDataError: it is damaged, encrypted, of another kind, or unpacks to far too much.
    """
    limit = _FREE_BYTES + _MAX_EXPANSION * path.stat().st_size
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                entries = _zip_entries(archive, importer)
                _import(tqdm(entries, "Unpacking", len(archive.filelist), unit=" files"), importer, limit)
        elif tarfile.is_tarfile(path):
            with tarfile.open(path) as archive:
                _import(tqdm(_tar_entries(archive, importer), "Unpacking", unit=" files"), importer, limit)
        else:
            raise UnusableDataError(f"{path} is not a zip or tar archive. Unpack it, and import the folder.")
    except _DAMAGES as error:
        raise UnusableDataError(
            f"{path} is damaged ({error}); {importer.num_new:,} images were unpacked before. Download it again, and "
            "import it again."
        ) from error
    except RuntimeError as error:  # zipfile's for an encrypted entry
        raise UnusableDataError(
            f"{path} cannot be unpacked ({error}). Unpack it yourself, and import the folder."
        ) from error


def import_folder(folder: Path, importer: Importer) -> None:
    """Copy the images of a folder, with its tree."""

    def entries() -> Iterator[Entry]:
        for path in folder.rglob("*"):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                importer.left_out["a link or a device"] += 1
            elif path.is_file() and not os.access(path, os.R_OK):
                importer.left_out["a file that you may not read"] += 1
            elif path.is_file():
                yield path.relative_to(folder).as_posix(), partial(_open, path)

    _import(tqdm(entries(), "Copying", unit=" files"), importer, None)


def _open(path: Path) -> IO[bytes]:
    return path.open("rb")


def _zip_entries(archive: zipfile.ZipFile, importer: Importer) -> Iterator[Entry]:
    encoding = _guess_encoding(archive, importer)
    for info in archive.infolist():
        if (info.external_attr >> 28) == 0o12:
            importer.left_out["a link"] += 1
        elif not info.is_dir():
            yield _zip_name(info, encoding), partial(archive.open, info)


def _guess_encoding(archive: zipfile.ZipFile, importer: Importer) -> str:
    """Return the encoding in which most folders name a class, the first of equals."""
    folders = {info.filename.rpartition("/")[0]: info for info in archive.infolist() if not info.filename.isascii()}

    def count_classes(encoding: str) -> int:
        names = [_zip_name(info, encoding) for info in folders.values()]
        return sum(any(map(importer.names_class, name.replace("\\", "/").split("/")[:-1])) for name in names)

    return max(_ENCODINGS, key=count_classes)


def _zip_name(info: zipfile.ZipInfo, encoding: str) -> str:
    """Return the name of an entry; without a flag, zipfile takes it for code page 437."""
    if info.flag_bits & _UTF8_FLAG:
        return info.filename
    try:
        return info.filename.encode("cp437").decode(encoding)
    except UnicodeError:
        return info.filename


def _tar_entries(archive: tarfile.TarFile, importer: Importer) -> Iterator[Entry]:
    for member in archive:
        if member.isfile():
            yield member.name, partial(_extract, archive, member)
        elif not member.isdir():
            importer.left_out["a link or a device"] += 1


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = archive.extractfile(member)
    assert stream
    return stream


def _import(entries: Iterable[Entry], importer: Importer, limit: int | None) -> None:
    num_bytes = 0
    for name, open_entry in entries:
        parts = name.replace("\\", "/").removeprefix("./").split("/")
        if parts[-1].casefold() == "subjects.csv":
            importer.left_out["a table of subjects: put it into the data root, with paths as they are below raw/"] += 1
            continue
        if any(is_junk_name(os.fsencode(part)) for part in parts if part not in {".", ".."}):
            continue
        if parts[-1].casefold().endswith(TABLE_SUFFIX):
            try:
                with open_entry() as stream:
                    import_table(stream, importer, [*parts[:-1], parts[-1][: -len(TABLE_SUFFIX)]])
            except UnusableDataError:  # it must not end the import of the other files
                importer.left_out["a table that is damaged or not UTF-8 text"] += 1
        elif path := importer.wants(parts):
            with open_entry() as stream:
                content = stream.read(MAX_IMAGE_BYTES + 1)
            num_bytes += len(content)
            if limit is not None and num_bytes > limit:
                raise UnusableDataError(
                    f"The archive unpacks to over {limit:,} bytes, far more than images would. If you trust it, "
                    "unpack it yourself, and import the folder."
                )
            importer.write(path, content)
