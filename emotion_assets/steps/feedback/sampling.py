"""Choose the predictions of a window whose labels are worth most."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from emotion_assets.core.features import EMOTION_COLUMN
from emotion_assets.steps.reference.reference import confidence_of

LABEL_REQUEST_CSV: Final = "label_request.csv"
NUM_REQUESTED: Final = 100
RANDOM: Final = "random"


def sample_for_labelling(
    window: pd.DataFrame, is_outlier: npt.NDArray[np.bool_], stored: Mapping[str, Path]
) -> pd.DataFrame:
    """Choose up to 100 predictions of a window for labelling.

    Half are drawn at random, because only those estimate accuracy; the others are outliers and the least confident
    predictions, because those are the most informative training images. The draw is deterministic: a window that is
    assessed again asks for the same images.

    Args:
        window: one row per prediction.
        is_outlier: bool (prediction,).
        stored: the stored images by prediction id.

    Returns:
        `prediction_id`, `reason` (`random`, `outlier` or `uncertain`), `emotion`, `confidence`, and `image`: the stored
        file, or an empty string.
    """
    confidence = confidence_of(window)
    order = np.random.default_rng(0).permutation(len(window))
    chosen = dict.fromkeys(order[: NUM_REQUESTED // 2].tolist(), RANDOM)
    for i in _informative_order(confidence, is_outlier):
        if len(chosen) >= NUM_REQUESTED:
            break
        chosen.setdefault(i, "outlier" if is_outlier[i] else "uncertain")
    rows = list(chosen)
    names = window["prediction_id"].to_numpy()[rows]
    return pd.DataFrame(
        {
            "prediction_id": names,
            "reason": list(chosen.values()),
            "emotion": window[EMOTION_COLUMN].to_numpy()[rows],
            "confidence": confidence[rows].round(4),
            "image": [str(stored.get(name, "")) for name in names],
        }
    )


def most_informative_images(
    window: pd.DataFrame, is_outlier: npt.NDArray[np.bool_], stored: Mapping[str, Path]
) -> list[Path]:
    """Return the images of a window that are among `stored`: outliers first, then the least confident predictions."""
    names = window["prediction_id"].to_numpy()
    return [stored[names[i]] for i in _informative_order(confidence_of(window), is_outlier) if names[i] in stored]


def _informative_order(confidence: npt.NDArray[np.float64], is_outlier: npt.NDArray[np.bool_]) -> list[int]:
    return sorted(range(len(confidence)), key=lambda i: (not is_outlier[i], confidence[i]))
