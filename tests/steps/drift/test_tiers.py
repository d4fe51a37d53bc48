from __future__ import annotations

import pytest

from emotion_assets.core.features import FEATURE_COLUMNS
from emotion_assets.steps.drift.tiers import (
    FALSE_ALARM_RATE,
    INPUT_COLUMNS,
    INPUT_LIMIT,
    NUMERIC_COLUMNS,
    PREDICTION_COLUMNS,
    PREDICTION_LIMIT,
)


def test_each_tier_keeps_the_false_alarm_rate() -> None:
    """The limits of a tier's columns add up to the rate of false alarms; no logged column is left out."""
    assert (*INPUT_COLUMNS, *PREDICTION_COLUMNS) == FEATURE_COLUMNS
    assert FEATURE_COLUMNS[:-1] == NUMERIC_COLUMNS
    assert INPUT_LIMIT * len(INPUT_COLUMNS) == pytest.approx(FALSE_ALARM_RATE)
    assert PREDICTION_LIMIT * len(PREDICTION_COLUMNS) == pytest.approx(FALSE_ALARM_RATE)
