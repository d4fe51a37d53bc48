"""The two tiers of drift tests and their significance levels."""

from __future__ import annotations

from typing import Final

import pandas as pd

from emotion_assets.core.features import EMOTION_COLUMN, probability_columns
from emotion_assets.core.image_stats import STATISTICS
from emotion_assets.steps.reference.reference import emotions_of

INPUT_COLUMNS: Final = STATISTICS

FALSE_ALARM_RATE: Final = 0.01
"""For each tier and window."""
INPUT_LIMIT: Final = FALSE_ALARM_RATE / len(INPUT_COLUMNS)
"""Significance level of one input column, after Bonferroni's correction."""
MIN_DISTANCE: Final = 0.12
"""Distributions that differ less, at their most different point, are equivalent. Windows of 500 would tell faces of one
source, collected at another time, from validation faces; what costs accuracy moves them farther."""


def prediction_columns(reference: pd.DataFrame) -> list[str]:
    """Return the columns of the second tier: the probability of each class, and the predicted class."""
    return [*probability_columns(emotions_of(reference)), EMOTION_COLUMN]


def numeric_columns(reference: pd.DataFrame) -> list[str]:
    """Return the columns of both tiers without the predicted class."""
    return [*STATISTICS, *probability_columns(emotions_of(reference))]


def prediction_limit(reference: pd.DataFrame) -> float:
    """Return the significance level of one prediction column, after Bonferroni's correction."""
    return FALSE_ALARM_RATE / len(prediction_columns(reference))


def limit(column: str, reference: pd.DataFrame) -> float:
    """Return the significance level of a column of either tier."""
    return INPUT_LIMIT if column in INPUT_COLUMNS else prediction_limit(reference)
