"""Which person an image shows, where that is known, so that faces of one person do not get into two splits.

A subject is named by the table `subjects.csv` in the data root or in `raw/`, with the columns `path` (of a file or a
folder below `raw/`) and `subject`, or by a folder such as `subject_07`, `person 7` or
`participant=anna`. Case and separators do not matter.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.files import csv_rows
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.ingest.store import Store

# With a number, or a name behind an equals sign: `person smiling` and `person_crops_256` are no person's name.
_FOLDER: Final = re.compile(r"(?:subject|person|participant)(?:=.+|[ _-]?[a-z]{0,2}\d+[a-z]?)", re.IGNORECASE)
_SEPARATORS: Final = re.compile(r"[\s_.=-]+")
_COLUMNS: Final = ("path", "subject")

_logger = logging.getLogger(__name__)


def digest_tables(paths: DataPaths) -> str:
    """Return a hash of the rows of the tables of subjects; an empty string if there is none.

    Raises:
        UnusableDataError: a table lacks a column, or is not UTF-8 text.
    """
    rows = [row for path in _tables(paths) for row in _read_table(path)]
    return hashlib.sha256(repr(rows).encode()).hexdigest() if rows else ""


@dataclass(frozen=True, slots=True)
class FoundSubjects:
    """Who is known to be in which image."""

    by_content: dict[int, set[str]]
    """The subjects of every content of which a file has one, by content id."""
    unused: list[str]
    """Paths in the tables that name no file of the catalogue."""

    @property
    def problem(self) -> str:
        """What is wrong with the tables, or an empty string."""
        if not self.unused:
            return ""
        return (
            f"{len(self.unused):,} paths in subjects.csv name no file in raw/, such as {self.unused[0]}. Write paths "
            "of files or folders as they are below raw/, with slashes."
        )


def find_subjects(store: Store, paths: DataPaths) -> FoundSubjects:
    """Look up the subject of every file of the catalogue, in the tables and in the names of its folders.

    Raises:
        UnusableDataError: a table lacks a column, or is not UTF-8 text.
    """
    table: dict[str, set[str]] = defaultdict(set)
    for name, subject in (row for path in _tables(paths) for row in _read_table(path)):
        table[name].add(subject)
    subjects: dict[int, set[str]] = defaultdict(set)
    used = set()
    for path, content_id in store.file_contents():
        parts = _clean_path(path.decode("utf-8", "backslashreplace")).split("/")
        if table:
            above = ("/".join(parts[:count]) for count in range(len(parts), 0, -1))
            if named := next((prefix for prefix in above if prefix in table), None):
                used.add(named)
                subjects[content_id] |= table[named]
                continue
        if folder := next((part for part in reversed(parts[:-1]) if _FOLDER.fullmatch(part)), None):
            subjects[content_id].add(_plain(folder))
    found = FoundSubjects(subjects, sorted(table.keys() - used))
    if found.problem:
        _logger.warning(found.problem)
    return found


def _tables(paths: DataPaths) -> tuple[Path, Path]:
    return paths.subjects, paths.raw / paths.subjects.name


def _read_table(path: Path) -> list[tuple[str, str]]:
    """Return the paths of a table with their subjects; a path may have several, and a missing table has none."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv_rows(file, skipinitialspace=True, strict=True)
            header = [name.strip().casefold() for name in next(rows, [])]
            if missing := [name for name in _COLUMNS if name not in header]:
                raise UnusableDataError(
                    f"{path} has no column {' and no column '.join(missing)}. Begin it with the line `path,subject`."
                )
            positions = [header.index(name) for name in _COLUMNS]
            pairs = [[row[position].strip() for position in positions] for row in rows if len(row) > max(positions)]
            return [(_clean_path(name), _plain(subject)) for name, subject in pairs if name and subject]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise UnusableDataError(f"{path} cannot be read ({error}). Save it as CSV in UTF-8.") from error


def _clean_path(path: str) -> str:
    """Return a path as the catalogue has it: relative to `raw/`, with slashes, in the usual form of Unicode."""
    text = unicodedata.normalize("NFC", path).replace("\\", "/").removeprefix("./").removeprefix("raw/")
    return re.sub("/+", "/", text).strip("/")


def _plain(subject: str) -> str:
    """Return the name of a subject without what people vary."""
    return _SEPARATORS.sub(" ", unicodedata.normalize("NFKC", subject)).strip().casefold()
