"""Which person an image shows, where that is known, so that faces of one person do not get into two splits.

A subject is named by the table `subjects.csv` in the data root or in `raw/`, with the columns `path` (of a file or a
folder below `raw/`) and `subject`, or by a folder such as `subject_07`, `person 7` or `participant-anna`.
"""

from __future__ import annotations

import csv
import logging
import re
from collections import defaultdict
from pathlib import Path
from typing import Final

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.ingest.store import Store

_FOLDER: Final = re.compile(rb"(?:subject|person|participant)(?:[ _=-].+|\d+)", re.IGNORECASE)
_COLUMNS: Final = ("path", "subject")

_logger = logging.getLogger(__name__)


def has_table(paths: DataPaths) -> bool:
    """Tell whether there is a table of subjects."""
    return any(path.exists() for path in _tables(paths))


def content_subjects(store: Store, paths: DataPaths) -> dict[int, set[str]]:
    """Return the subjects of every content of which a file has one, by content id.

    Raises:
        UnusableDataError: a table lacks a column, or is no text.
    """
    table = {name: subject for path in _tables(paths) for name, subject in _read_table(path).items()}
    subjects: dict[int, set[str]] = defaultdict(set)
    used = set()
    for path, content_id in store.file_contents():
        parts = path.split(b"/")
        if table:
            above = (b"/".join(parts[:count]) for count in range(len(parts), 0, -1))
            if named := next((prefix for prefix in above if prefix in table), None):
                used.add(named)
                subjects[content_id].add(table[named])
                continue
        if folder := next((part for part in reversed(parts[:-1]) if _FOLDER.fullmatch(part)), None):
            subjects[content_id].add(folder.decode("utf-8", "backslashreplace").casefold())
    if unused := table.keys() - used:
        example = min(unused).decode("utf-8", "replace")
        _logger.warning("%s: %d paths name no file in raw/, such as %s", paths.subjects.name, len(unused), example)
    return subjects


def _tables(paths: DataPaths) -> tuple[Path, Path]:
    return paths.subjects, paths.raw / paths.subjects.name


def _read_table(path: Path) -> dict[bytes, str]:
    """Return the subject of each path of a table; empty if there is none."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            if missing := [name for name in _COLUMNS if name not in (rows.fieldnames or ())]:
                raise UnusableDataError(
                    f"{path} has no column {' and no column '.join(missing)}. Begin it with the line `path,subject`."
                )
            return {_clean_path(row["path"]): row["subject"].strip() for row in rows if row["path"] and row["subject"]}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, csv.Error) as error:
        raise UnusableDataError(f"{path} cannot be read ({error}). Save it as CSV in UTF-8.") from error


def _clean_path(path: str) -> bytes:
    """Return a path as the catalogue has it: relative to `raw/`, with slashes."""
    return path.strip().replace("\\", "/").removeprefix("./").removeprefix("raw/").strip("/").encode()
