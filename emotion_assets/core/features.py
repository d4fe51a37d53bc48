"""The features of a predicted image: the columns of prediction log, reference and drift table."""

from __future__ import annotations

from typing import Final

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.image_stats import STATISTICS, image_statistics
from emotion_assets.core.images import Pixels

PROBABILITY_COLUMNS: Final = tuple(f"p_{emotion}" for emotion in EMOTIONS)
EMOTION_COLUMN: Final = "emotion"
FEATURE_COLUMNS: Final = (*STATISTICS, *PROBABILITY_COLUMNS, EMOTION_COLUMN)

FEATURE_DIGITS: Final = 6


def image_features(pixels: Pixels) -> dict[str, float]:
    """Compute the statistics of one image, uint8 (64, 64), rounded for the log and the HTTP response."""
    return {name: round(float(values[0]), FEATURE_DIGITS) for name, values in image_statistics(pixels[None]).items()}
