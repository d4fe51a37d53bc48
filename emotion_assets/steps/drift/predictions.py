"""Read what is to be held against the reference: the service's log, or a folder of another source."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from emotion_assets.core.classifier import Classifier
from emotion_assets.core.emotions import EMOTIONS
from emotion_assets.core.errors import PictureError
from emotion_assets.core.image_stats import STATISTICS
from emotion_assets.core.images import decode_picture
from emotion_assets.core.logged_values import EMOTION_COLUMN, LOGGED_COLUMNS, PROBABILITY_COLUMNS
from emotion_assets.steps.training.reference import logged_table

_MAX_FOLDER_PICTURES: Final = 500


def read_log(predictions_dir: Path, version: str, limit: int) -> pd.DataFrame:
    """Return the latest predictions of one model version.

    A line torn by a kill is passed over; so is any line without the expected values.

    Returns:
        At most `limit` rows in the order of their time, with `time`, `prediction_id` and LOGGED_COLUMNS.
    """
    rows: list[dict[str, Any]] = []
    # A segment lasts an hour at most, so a few of the newest, by their UTC start, hold the latest rows.
    for path in sorted(predictions_dir.glob("**/*.jsonl"), key=lambda path: path.name, reverse=True):
        rows += [row for row in _rows_of(path) if row["model_version"] == version]
        if len(rows) >= 4 * limit:
            break
    table = pd.DataFrame(rows, columns=["time", "prediction_id", "model_version", *LOGGED_COLUMNS])
    return table.sort_values("time").tail(limit).reset_index(drop=True)


def _rows_of(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            try:
                record = json.loads(line)
                yield {
                    "time": str(record["time"]),
                    "prediction_id": str(record["prediction_id"]),
                    "model_version": str(record["model_version"]),
                    **{name: float(record["features"][name]) for name in STATISTICS},
                    **{f"p_{emotion}": float(record["probabilities"][emotion]) for emotion in EMOTIONS},
                    EMOTION_COLUMN: str(record["emotion"]),
                }
            except (ValueError, KeyError, TypeError, AttributeError):
                continue


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
            pictures.append(decode_picture(path.read_bytes()).pixels)
        except (PictureError, OSError):
            num_refused += 1
    if not pictures:
        return pd.DataFrame(columns=list(LOGGED_COLUMNS)), num_refused
    pixels = np.stack(pictures)
    return logged_table(pixels, classifier.predict(pixels).probabilities), num_refused


NUMERIC_COLUMNS: Final = (*STATISTICS, *PROBABILITY_COLUMNS)
