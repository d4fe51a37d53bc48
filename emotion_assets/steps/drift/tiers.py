"""The two tiers of drift tests and their significance levels."""

from __future__ import annotations

from typing import Final

from emotion_assets.core.features import EMOTION_COLUMN, PROBABILITY_COLUMNS
from emotion_assets.core.image_stats import STATISTICS

INPUT_COLUMNS: Final = STATISTICS
PREDICTION_COLUMNS: Final = (*PROBABILITY_COLUMNS, EMOTION_COLUMN)
NUMERIC_COLUMNS: Final = (*STATISTICS, *PROBABILITY_COLUMNS)

FALSE_ALARM_RATE: Final = 0.01
"""For each tier and window."""
INPUT_LIMIT: Final = FALSE_ALARM_RATE / len(INPUT_COLUMNS)
"""Significance level of one input column, after Bonferroni's correction."""
PREDICTION_LIMIT: Final = FALSE_ALARM_RATE / len(PREDICTION_COLUMNS)
"""The same for one prediction column."""
