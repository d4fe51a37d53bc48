"""Read what is compared with the reference: the service's prediction log, or a folder of external images."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from emotion_assets.core.classifier import Classifier
from emotion_assets.core.errors import ImageError
from emotion_assets.core.features import EMOTION_COLUMN, feature_columns, probability_columns
from emotion_assets.core.files import files_below, list_files
from emotion_assets.core.image_stats import STATISTICS
from emotion_assets.core.images import read_image
from emotion_assets.core.layout import DAY_PATTERN
from emotion_assets.steps.reference.reference import feature_table

HISTORY_NAME: Final = "history"
"""Subfolder of the log with past hours as Parquet."""
LOG_COLUMNS: Final = ("time", "prediction_id", "model_version", *STATISTICS, EMOTION_COLUMN, "image_sha256")
"""Columns of a prediction besides its probabilities; `time` is ISO 8601, UTC."""
ROWS_PER_PART: Final = 20_000

_MAX_FOLDER_IMAGES: Final = 500


class PredictionLogReader:
    """The newest predictions of the service, from segments and from their Parquet history.

    Files are read from the newest hour backwards, each at most once, and only as far as needed. Malformed lines, such
    as one torn by a kill, are skipped, and so are predictions later than `until`.
    """

    def __init__(self, predictions_dir: Path, limit: int, until: str = "9") -> None:
        """Read at most `limit` predictions of each model up to `until`, a time as in the log."""
        self._limit, self._until = limit, until
        segments = [(path.name[:11], path) for path in list_files(predictions_dir, f"{DAY_PATTERN}/*.jsonl")]
        segments += [
            (f"{path.parent.name.replace('-', '')}T{path.stem}", path)
            for path in list_files(predictions_dir / HISTORY_NAME, "*/*.parquet")
        ]
        self._unread = sorted(segments)
        self._rows = pd.DataFrame(columns=list(LOG_COLUMNS))

    def latest(self, version: str | None = None, emotions: Sequence[str] = ()) -> pd.DataFrame:
        """Return the latest `limit` predictions of one model version, or of all, sorted by time.

        They have LOG_COLUMNS and the probabilities of `emotions`; rows that lack one are left out.
        """
        while len(rows := self._of(version)) < self._limit and self._unread:
            self._read_hour()
        columns = [*LOG_COLUMNS[:-1], *probability_columns(emotions), LOG_COLUMNS[-1]]
        rows = rows.reindex(columns=columns).dropna(subset=probability_columns(emotions))
        return rows.tail(self._limit).reset_index(drop=True)

    def _of(self, version: str | None) -> pd.DataFrame:
        return self._rows if version is None else self._rows[self._rows["model_version"] == version]

    def _read_hour(self) -> None:
        """Read all files of the newest unread hour, in which the segments of several workers overlap."""
        hour = self._unread[-1][0]
        tables = [self._rows]
        while self._unread and self._unread[-1][0] == hour:
            try:
                tables.append(self._newest_rows(self._unread.pop()[1]))
            except FileNotFoundError:
                continue  # just compacted; a later check reads the hour's history
        tables = [table for table in tables if len(table)] or tables[:1]
        rows = pd.concat(tables, ignore_index=True).drop_duplicates("prediction_id").sort_values("time", kind="stable")
        # A new model's few predictions are looked for in the whole history, of which nothing else must pile up.
        self._rows = rows.groupby("model_version").tail(self._limit)

    def _newest_rows(self, path: Path) -> pd.DataFrame:
        """Return the last `limit` rows of each model in a file, whose rows are in the order of time."""
        kept = pd.DataFrame(columns=list(LOG_COLUMNS))
        for part in read_parts(path):
            wanted = part[part["time"] <= self._until].dropna(subset=list(LOG_COLUMNS[:-1]))
            if len(wanted):
                kept = pd.concat([kept, wanted]) if len(kept) else wanted
                kept = kept.groupby("model_version").tail(self._limit)
        return kept


def read_parts(path: Path) -> Iterator[pd.DataFrame]:
    """Yield a segment of the log, or an hour of its history, in parts; a busy hour is gigabytes.

    They have LOG_COLUMNS, and the probabilities of every class of any of their models.
    """
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS_PER_PART):
                yield batch.to_pandas()
        return
    with path.open("rb") as file:
        while lines := list(islice(file, ROWS_PER_PART)):
            rows = [row for line in lines if (row := _parse(line))]
            yield pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(LOG_COLUMNS))


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return the values of a log line by column; None if it is malformed."""
    try:
        record = json.loads(line)
        probabilities: dict[str, Any] = record["probabilities"]
        return {
            "time": str(record["time"]),
            "prediction_id": str(record["prediction_id"]),
            "model_version": str(record["model_version"]),
            **{name: float(record["features"][name]) for name in STATISTICS},
            EMOTION_COLUMN: str(record["emotion"]),
            "image_sha256": str(record["image_sha256"]),
            **dict(zip(probability_columns(probabilities), map(float, probabilities.values()), strict=True)),
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def predict_folder(folder: Path, classifier: Classifier) -> tuple[pd.DataFrame, int]:
    """Predict up to 500 images of a folder, drawn evenly over their sorted paths.

    Returns:
        Features and predictions, one row per image, and the number of files that are not readable images.
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
    emotions = classifier.manifest.emotions
    if not images:
        return pd.DataFrame(columns=feature_columns(emotions)), num_rejected
    pixels = np.stack(images)
    return feature_table(pixels, classifier.predict(pixels).probabilities, emotions), num_rejected
