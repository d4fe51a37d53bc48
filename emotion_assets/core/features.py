"""The features of a predicted image: the columns of prediction log, reference and drift table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from emotion_assets.core.image_stats import STATISTICS, image_statistics
from emotion_assets.core.images import Pixels

EMOTION_COLUMN: Final = "emotion"
PROBABILITY_PREFIX: Final = "p_"

FEATURE_DIGITS: Final = 6


def probability_columns(emotions: Iterable[str]) -> list[str]:
    """Return the column of each class's probability."""
    return [PROBABILITY_PREFIX + emotion for emotion in emotions]


def feature_columns(emotions: Iterable[str]) -> list[str]:
    """Return the columns of a prediction of a model with these classes."""
    return [*STATISTICS, *probability_columns(emotions), EMOTION_COLUMN]


def image_features(pixels: Pixels) -> dict[str, float]:
    """Compute the statistics of one image, uint8 (64, 64), rounded for the log and the HTTP response."""
    return {name: round(float(values[0]), FEATURE_DIGITS) for name, values in image_statistics(pixels[None]).items()}
