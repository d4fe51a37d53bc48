"""Publish the catalogue's table, one row for each file, for people and other tools."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.files import atomic_file
from emotion_assets.steps.ingest.conflicts import Subjects, resolve_labels
from emotion_assets.steps.ingest.near_duplicates import duplicate_groups
from emotion_assets.steps.ingest.store import Store

TABLE_NAME: Final = "catalogue.parquet"
_ROWS_PER_GROUP: Final = 20_000
_TABLES_KEY: Final = "subjects"
_TABLE_SCHEMA: Final = pa.schema(
    [
        ("path", pa.string()),
        ("label", pa.string()),
        ("size_bytes", pa.int64()),
        ("content_hash", pa.string()),
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("mode", pa.string()),
        ("format", pa.string()),
        ("warning", pa.string()),
        ("is_accepted", pa.bool_()),
        ("reason_code", pa.string()),
        ("reason", pa.string()),
        ("num_files", pa.int64()),
        ("near_duplicate_group", pa.string()),
        ("has_label_conflict", pa.bool_()),
        ("subject", pa.string()),
    ]
)


def export_catalogue(store: Store, catalogue_dir: Path, subjects: Subjects, tables: str) -> None:
    """Write `catalogue.parquet`; `tables` is the hash of the tables that name `subjects`."""
    with atomic_file(catalogue_dir / TABLE_NAME) as file, pq.ParquetWriter(file, _TABLE_SCHEMA) as writer:
        # In row groups, so that memory does not grow with the number of files.
        remaining = _table_rows(store, subjects)
        while rows := list(islice(remaining, _ROWS_PER_GROUP)):
            columns = [list(column) for column in zip(*rows, strict=True)]
            writer.write_table(pa.table(columns, schema=_TABLE_SCHEMA))
        writer.add_key_value_metadata({_TABLES_KEY: tables})


def read_catalogue(catalogue_dir: Path) -> pd.DataFrame:
    """Return the published catalogue, one row for each file."""
    return pd.read_parquet(catalogue_dir / TABLE_NAME)


def read_contents(catalogue_dir: Path, columns: list[str]) -> pd.DataFrame:
    """Return columns of the accepted images, one row for each content, by its hash.

    Raises:
        UnusableDataError: nothing was ingested yet.
    """
    path = catalogue_dir / TABLE_NAME
    if not path.exists():
        raise UnusableDataError(f"There is no catalogue {path}. Materialize raw_images first.")
    table = pd.read_parquet(path, columns=["content_hash", "is_accepted", *columns])
    # The hash of a rejected file may be a stand-in, such as its size.
    return table[table["is_accepted"]].drop_duplicates("content_hash").set_index("content_hash")[columns]


def different_images(catalogue: pd.DataFrame) -> pd.DataFrame:
    """Return the accepted images, one row for each content: that of a file whose label counts, if there is one."""
    accepted = catalogue[catalogue["is_accepted"]]
    return accepted.sort_values("has_label_conflict", kind="stable").drop_duplicates("content_hash")


def _table_rows(store: Store, subjects: Subjects) -> Iterator[tuple[object, ...]]:
    groups = duplicate_groups(store.pairs(), store.hashes_by_id())
    resolved = resolve_labels(store, subjects)
    for path, *columns, code, reason, content_id in store.file_rows():
        is_conflicting = content_id in resolved.conflicting or (content_id, columns[0]) in resolved.set_aside
        subject = " and ".join(sorted(subjects.get(content_id, ()))) or None
        group = groups.get(content_id)
        yield path_text(path), *columns, code is None, code, reason, 1, group, is_conflicting, subject
    for path, code, reason, num_files in store.skipped_files():
        row = {"path": path_text(path), "is_accepted": False, "reason_code": code, "reason": reason}
        row["num_files"] = num_files
        row["has_label_conflict"] = False
        yield tuple(row.get(name) for name in _TABLE_SCHEMA.names)


def read_tables_digest(table_path: Path) -> str | None:
    """Return the hash of the tables of subjects that the catalogue was written with; None if it cannot be read."""
    try:
        metadata: dict[bytes, bytes] = pq.read_metadata(table_path).metadata or {}
    except (OSError, pa.ArrowInvalid):
        return None
    return metadata.get(_TABLES_KEY.encode(), b"").decode()


def path_text(path: bytes) -> str:
    """Return a path of the file system as text that can be stored and shown."""
    return path.decode("utf-8", "backslashreplace")
