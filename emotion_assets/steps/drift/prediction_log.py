"""Read what is to be compared with the reference: the service's log, or a folder of another source."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.classifier import Classifier
from emotion_assets.core.errors import ImageError
from emotion_assets.core.features import EMOTION_COLUMN, FEATURE_COLUMNS
from emotion_assets.core.files import files_below, listed
from emotion_assets.core.image_stats import STATISTICS
from emotion_assets.core.images import read_image
from emotion_assets.core.layout import DAY_PATTERN
from emotion_assets.steps.reference.reference import feature_table

_MAX_FOLDER_IMAGES: Final = 500

HISTORY_NAME: Final = "history"
COLUMNS: Final = ("time", "prediction_id", "model_version", *FEATURE_COLUMNS, "image_sha256")
"""What is known of an answered image; `time` as ISO 8601, UTC."""
ROWS_PER_PART: Final = 20_000


def read_log(predictions_dir: Path, version: str | None, limit: int, until: str = "9") -> pd.DataFrame:
    """Return the latest predictions of one model version, or of all, from segments and from their Parquet history.

    A line torn by a kill is skipped; so is any line without the expected values, such as older code's, and any
    later than `until`, a time as in the log.

    Returns:
        At most `limit` rows in the order of their time, with `time`, `prediction_id`, `model_version` and
        FEATURE_COLUMNS.
    """
    columns = list(COLUMNS[:-1])
    tables = [pd.DataFrame(columns=columns)]
    num_rows = 0
    # An hour is a few files at most, so those of the newest hours hold the latest rows.
    sources = [(path.name[:11], path) for path in listed(predictions_dir, DAY_PATTERN, "*.jsonl")]
    sources += [
        (f"{path.parent.name.replace('-', '')}T{path.stem}", path)
        for path in listed(predictions_dir / HISTORY_NAME, "*", "*.parquet")
    ]
    last_hour = ""
    for hour, path in sorted(sources, reverse=True):
        # Within an hour segments of several workers overlap, so an hour is read to its end.
        if num_rows >= limit and hour != last_hour:
            break
        last_hour = hour
        try:
            table = _latest(read_parts(path), version, limit, until)[columns]
        except FileNotFoundError:
            continue  # compacted in this moment; its hour's history follows, or is read next time
        num_rows += len(table)
        if len(table):
            tables.append(table)
    together = pd.concat(tables[1:] or tables, ignore_index=True).drop_duplicates("prediction_id")
    return together.sort_values("time").tail(limit).reset_index(drop=True)


def _latest(parts: Iterable[pd.DataFrame], version: str | None, limit: int, until: str) -> pd.DataFrame:
    """Return the last `limit` rows of interest of a file whose rows are in the order of their time."""
    kept = pd.DataFrame(columns=list(COLUMNS))
    for part in parts:
        is_wanted = (part["time"] <= until) & (version is None or part["model_version"] == version)
        wanted = part[is_wanted].dropna(subset=list(COLUMNS[:-1]))
        if len(wanted):
            kept = pd.concat([kept, wanted]).tail(limit) if len(kept) else wanted.tail(limit)
    return kept


def read_parts(path: Path) -> Iterator[pd.DataFrame]:
    """Yield a segment of the log, or an hour of its history, in portions with COLUMNS; a busy hour is gigabytes.

    What older code did not write is not a number. What is no whole record is skipped.
    """
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS_PER_PART):
                yield batch.to_pandas().reindex(columns=list(COLUMNS))
        return
    with path.open("rb") as file:
        while lines := list(islice(file, ROWS_PER_PART)):
            rows = [row for line in lines if (row := _record(line))]
            yield pd.DataFrame(rows, columns=list(COLUMNS))


def _record(line: bytes) -> dict[str, Any] | None:
    """Return the values of a line of the log, by COLUMNS; None if it is no whole record."""
    try:
        record = json.loads(line)
        return {
            "time": str(record["time"]),
            "prediction_id": str(record["prediction_id"]),
            "model_version": str(record["model_version"]),
            **{name: float(record["features"].get(name, np.nan)) for name in STATISTICS},
            **{f"p_{emotion}": float(record["probabilities"][emotion]) for emotion in EMOTIONS},
            EMOTION_COLUMN: str(record["emotion"]),
            "image_sha256": str(record.get("image_sha256", "")),
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def predict_folder(folder: Path, classifier: Classifier) -> tuple[pd.DataFrame, int]:
    """Let the model answer for up to 500 images of a folder, drawn evenly over their sorted paths.

    Returns:
        The logged values, one row an image, and the number of files that are no readable image.
    """
    paths = files_below(folder)
    if len(paths) > _MAX_FOLDER_IMAGES:
        paths = [paths[i] for i in np.linspace(0, len(paths) - 1, _MAX_FOLDER_IMAGES).astype(int)]
    images = []
    num_rejected = 0
    for path in paths:
        try:
            images.append(read_image(path).pixels)
        except (ImageError, OSError):
            num_rejected += 1
    if not images:
        return pd.DataFrame(columns=list(FEATURE_COLUMNS)), num_rejected
    pixels = np.stack(images)
    return feature_table(pixels, classifier.predict(pixels).probabilities), num_rejected
