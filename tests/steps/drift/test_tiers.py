from __future__ import annotations

import pandas as pd
import pytest

from emotion_assets.core.features import feature_columns
from emotion_assets.steps.drift.tiers import (
    FALSE_ALARM_RATE,
    INPUT_COLUMNS,
    INPUT_LIMIT,
    numeric_columns,
    prediction_columns,
    prediction_limit,
)


@pytest.mark.parametrize("emotions", [("no", "yes"), ("angry", "fear", "happy", "sad", "surprise"), tuple("abcdefgh")])
def test_each_tier_keeps_the_false_alarm_rate(emotions: tuple[str, ...]) -> None:
    """The limits of a tier's columns add up to the rate of false alarms; no logged column is left out."""
    columns = feature_columns(emotions)
    reference = pd.DataFrame(columns=columns)

    assert [*INPUT_COLUMNS, *prediction_columns(reference)] == columns
    assert numeric_columns(reference) == columns[:-1]
    assert INPUT_LIMIT * len(INPUT_COLUMNS) == pytest.approx(FALSE_ALARM_RATE)
    assert prediction_limit(reference) * len(prediction_columns(reference)) == pytest.approx(FALSE_ALARM_RATE)
