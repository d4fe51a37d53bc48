"""Read what is to be held against the reference: the service's log, or a folder of another source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from emotion_assets.core.classifier import Classifier
from emotion_assets.core.emotions import EMOTIONS
from emotion_assets.core.errors import PictureError
from emotion_assets.core.files import listed
from emotion_assets.core.image_stats import STATISTICS
from emotion_assets.core.images import read_picture
from emotion_assets.core.logged_values import EMOTION_COLUMN, LOGGED_COLUMNS, PROBABILITY_COLUMNS
from emotion_assets.steps.training.reference import logged_table

_MAX_FOLDER_PICTURES: Final = 500

HISTORY_NAME: Final = "history"
COLUMNS: Final = ("time", "prediction_id", "model_version", *LOGGED_COLUMNS, "picture_sha256")
"""What is known of an answered picture; `time` as ISO 8601, UTC."""


def read_log(predictions_dir: Path, version: str, limit: int, until: str = "9") -> pd.DataFrame:
    """Return the latest predictions of one model version, from segments and from their Parquet history.

    A line torn by a kill is passed over; so is any line without the expected values, such as older code's, and any
    later than `until`, a time as in the log.

    Returns:
        At most `limit` rows in the order of their time, with `time`, `prediction_id` and LOGGED_COLUMNS.
    """
    columns = ["time", "prediction_id", "model_version", *LOGGED_COLUMNS]
    tables = [pd.DataFrame(columns=columns)]
    num_rows = 0
    # An hour is a few files at most, so those of the newest hours hold the latest rows.
    sources = [(path.name[:11], path) for path in listed(predictions_dir, "????-??-??", "*.jsonl")]
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
            table = (
                read_hour(path) if path.suffix == ".parquet" else pd.DataFrame(read_segment(path)[0], columns=columns)
            )
        except FileNotFoundError:
            continue  # compacted in this moment; its hour's history follows, or is read next time
        table = table[(table["model_version"] == version) & (table["time"] <= until)][columns].dropna()
        num_rows += len(table)
        if len(table):
            tables.append(table)
    together = pd.concat(tables[1:] or tables, ignore_index=True).drop_duplicates("prediction_id")
    return together.sort_values("time").tail(limit).reset_index(drop=True)


def read_hour(path: Path) -> pd.DataFrame:
    """Return one hour of the history, with COLUMNS; what older code did not write is not a number."""
    return pd.read_parquet(path).reindex(columns=list(COLUMNS))


def read_segment(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the whole records of a segment, with COLUMNS, and how many lines are none.

    A statistic that older code did not write is not a number.
    """
    rows: list[dict[str, Any]] = []
    num_lines = 0
    with path.open("rb") as file:
        for line in file:
            num_lines += 1
            try:
                record = json.loads(line)
                rows.append(
                    {
                        "time": str(record["time"]),
                        "prediction_id": str(record["prediction_id"]),
                        "model_version": str(record["model_version"]),
                        **{name: float(record["features"].get(name, np.nan)) for name in STATISTICS},
                        **{f"p_{emotion}": float(record["probabilities"][emotion]) for emotion in EMOTIONS},
                        EMOTION_COLUMN: str(record["emotion"]),
                        "picture_sha256": str(record.get("picture_sha256", "")),
                    }
                )
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
    return rows, num_lines - len(rows)


def answer_folder(folder: Path, classifier: Classifier) -> tuple[pd.DataFrame, int]:
    """Let the model answer for up to 500 pictures of a folder, drawn evenly over their sorted paths.

    Returns:
        The logged values, one row a picture, and the number of files that are no readable picture.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    if len(paths) > _MAX_FOLDER_PICTURES:
        paths = [paths[i] for i in np.linspace(0, len(paths) - 1, _MAX_FOLDER_PICTURES).astype(int)]
    pictures = []
    num_refused = 0
    for path in paths:
        try:
            pictures.append(read_picture(path).pixels)
        except (PictureError, OSError):
            num_refused += 1
    if not pictures:
        return pd.DataFrame(columns=list(LOGGED_COLUMNS)), num_refused
    pixels = np.stack(pictures)
    return logged_table(pixels, classifier.predict(pixels).probabilities), num_refused


NUMERIC_COLUMNS: Final = (*STATISTICS, *PROBABILITY_COLUMNS)
