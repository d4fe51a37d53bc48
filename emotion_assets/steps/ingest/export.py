"""The catalogue's table, one row a file, for people and other tools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from emotion_assets.core.files import atomic_file
from emotion_assets.steps.ingest.near_duplicates import duplicate_groups
from emotion_assets.steps.ingest.store import Store

TABLE_NAME: Final = "catalogue.parquet"

_ROWS_A_GROUP: Final = 20_000
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
        ("is_accepted", pa.bool_()),
        ("reason_code", pa.string()),
        ("reason", pa.string()),
        ("near_duplicate_group", pa.string()),
        ("has_label_conflict", pa.bool_()),
        ("split", pa.string()),
    ]
)


def export_catalogue(store: Store, catalogue_dir: Path, splits: Mapping[str, str]) -> Path:
    """Write `catalogue.parquet`, one row a file, for people and other tools; return its path.

    `splits` gives the split (or the reason for having none) by content hash.
    """
    table_path = catalogue_dir / TABLE_NAME
    with atomic_file(table_path) as file, pq.ParquetWriter(file, _TABLE_SCHEMA) as writer:
        # In portions, so that memory does not grow with the number of files.
        waiting = _table_rows(store, splits)
        while rows := list(islice(waiting, _ROWS_A_GROUP)):
            columns = [list(column) for column in zip(*rows, strict=True)]
            writer.write_table(pa.table(columns, schema=_TABLE_SCHEMA))
    return table_path


def _table_rows(store: Store, splits: Mapping[str, str]) -> Iterator[tuple[object, ...]]:
    """Yield a row of _TABLE_SCHEMA for each file, and for each thing that is no usable file."""
    groups = duplicate_groups(store.pairs(), store.hashes_by_id())
    conflicting = conflicts(store, store.labels_by_content())
    for path, *facts, code, reason, content_id in store.file_rows():
        content_hash = str(facts[2])
        group, split = groups.get(content_id), splits.get(content_hash)
        yield (_readable(path), *facts, code is None, code, reason, group, content_id in conflicting, split)
    empty = dict.fromkeys(_TABLE_SCHEMA.names)
    for path, code, reason in store.skipped_files():
        known = {"path": _readable(path), "is_accepted": False, "reason_code": code, "reason": reason}
        yield tuple((empty | known | {"has_label_conflict": False}).values())


def is_readable(table_path: Path) -> bool:
    """Tell whether there is a table that can be read; its last bytes say so."""
    try:
        pq.read_metadata(table_path)
    except (OSError, pa.ArrowInvalid):
        return False
    return True


def conflicts(store: Store, labels: dict[int, set[str]]) -> set[int]:
    """Return the ids of contents that carry two labels, themselves or together with a near-duplicate."""
    conflicting = {content_id for content_id, names in labels.items() if len(names) > 1}
    for first, second in store.pairs().tolist():
        if first in labels and second in labels and labels[first] != labels[second]:
            conflicting |= {first, second}
    return conflicting


def _readable(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
