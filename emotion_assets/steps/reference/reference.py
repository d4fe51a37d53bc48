"""The drift reference: the logged features of validation faces.

On faces of the train split the network is overconfident, which would look like drift in the log.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from emotion_assets.core.features import (
    EMOTION_COLUMN,
    FEATURE_DIGITS,
    PROBABILITY_PREFIX,
    feature_columns,
    probability_columns,
)
from emotion_assets.core.image_stats import STATISTICS, all_image_statistics
from emotion_assets.core.images import Pixels
from emotion_assets.steps.splits.splits import Split

TRUE_EMOTION_COLUMN = "true_emotion"


def build_reference(val: Split, probabilities: npt.NDArray[np.float32]) -> pd.DataFrame:
    """Return the logged features of validation faces with their true emotions, one row per face."""
    table = feature_table(val.pixels, probabilities, val.emotions)
    table[TRUE_EMOTION_COLUMN] = [val.emotions[index] for index in val.class_indices]
    return table


def feature_table(pixels: Pixels, probabilities: npt.NDArray[np.float32], emotions: Sequence[str]) -> pd.DataFrame:
    """Return the logged features of images, one row per image.

    Args:
        pixels: uint8 (image, 64, 64).
        probabilities: float32 (image, emotion), the model's predictions.
        emotions: the model's classes.

    Returns:
        A table with the columns of `feature_columns`: floats, and the name of the predicted emotion.
    """
    by_class = {name: probabilities[:, index] for index, name in enumerate(probability_columns(emotions))}
    table = pd.DataFrame(all_image_statistics(pixels) | by_class)
    table[EMOTION_COLUMN] = [emotions[index] for index in probabilities.argmax(axis=1)]
    return round_features(table[feature_columns(emotions)])


def round_features(table: pd.DataFrame) -> pd.DataFrame:
    """Round statistics as the log does, so that equal values stay equal."""
    statistics = [name for name in STATISTICS if name in table]
    return table.assign(**table[statistics].astype(np.float64).round(FEATURE_DIGITS))


def confidence_of(table: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return the largest probability of each row of a table of predictions, float (image,)."""
    return np.asarray(table[probability_columns(emotions_of(table))].to_numpy(dtype=np.float64).max(axis=1))


def class_indices(table: pd.DataFrame, column: str) -> npt.NDArray[np.intp]:
    """Return the position of each row's class among the model's classes, int (image,)."""
    return pd.Index(emotions_of(table)).get_indexer(pd.Index(table[column]))


def emotions_of(table: pd.DataFrame) -> tuple[str, ...]:
    """Return the classes of the model that made the predictions in a table, in order."""
    return tuple(name.removeprefix(PROBABILITY_PREFIX) for name in table.columns if name.startswith(PROBABILITY_PREFIX))
