"""What the service's log would look like on faces like the training faces: the yardstick of drift.

It is taken from validation faces, which the network never fitted: on fitted ones its answers are too sure,
and drift would be seen where there is none.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.features import EMOTION_COLUMN, FEATURE_COLUMNS, FEATURE_DIGITS, PROBABILITY_COLUMNS
from emotion_assets.core.image_stats import STATISTICS, image_statistics
from emotion_assets.core.images import Pixels
from emotion_assets.steps.splits.splits import Split

TRUE_EMOTION_COLUMN = "true_emotion"

_CHUNK = 512


def build_reference(val: Split, probabilities: npt.NDArray[np.float32]) -> pd.DataFrame:
    """Return the logged values of validation faces with their true emotions, one row each."""
    table = feature_table(val.pixels, probabilities)
    table[TRUE_EMOTION_COLUMN] = [EMOTIONS[index] for index in val.class_indices]
    return table


def feature_table(pixels: Pixels, probabilities: npt.NDArray[np.float32]) -> pd.DataFrame:
    """Return the logged values of images, one row each.

    Args:
        pixels: uint8 (image, 64, 64).
        probabilities: float32 (image, emotion), the model's answers for them.

    Returns:
        A table with the columns of FEATURE_COLUMNS: floats, and the predicted emotion as a word.
    """
    parts = [image_statistics(pixels[start : start + _CHUNK]) for start in range(0, len(pixels), _CHUNK)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    columns |= {name: probabilities[:, index] for index, name in enumerate(PROBABILITY_COLUMNS)}
    table = pd.DataFrame(columns)
    table[EMOTION_COLUMN] = [EMOTIONS[index] for index in probabilities.argmax(axis=1)]
    return rounded(table[list(FEATURE_COLUMNS)])


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with its statistics as the log has them, so that values which many images share stay equal."""
    statistics = [name for name in STATISTICS if name in table]
    return table.assign(**table[statistics].astype(np.float64).round(FEATURE_DIGITS))
