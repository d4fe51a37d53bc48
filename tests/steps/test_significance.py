"""The p-values of drift, held against scipy's and against simulation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp

from emotion_assets.core.emotions import EMOTIONS
from emotion_assets.steps.drift.significance import p_of_emotions, p_of_more, p_of_numbers, worth


def test_equal_weights_change_nothing() -> None:
    """With the same weight for every row the tests are the plain ones, whatever that weight is."""
    rng = np.random.default_rng(0)
    current, reference = pd.Series(rng.normal(0.1, 1, 200)), pd.Series(rng.normal(0, 1, 3000))
    emotions = pd.Series(rng.choice(EMOTIONS, 200)), pd.Series(rng.choice(EMOTIONS, 3000))
    weights = np.full(3000, 7.0)

    expected = ks_2samp(current, reference, method="asymp").pvalue
    assert p_of_numbers(current, reference) == pytest.approx(expected)
    assert p_of_numbers(current, reference, weights) == pytest.approx(expected)
    assert p_of_emotions(*emotions, weights) == pytest.approx(p_of_emotions(*emotions))
    assert worth(weights) == pytest.approx(3000)


def test_weights_that_match_the_mix_raise_no_alarm() -> None:
    """A reference weighted to the mix of the window is as good as one that was drawn with it."""
    alarms_plain = alarms_weighted = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)

        def drawn(count: int, happy: float, rng: np.random.Generator = rng) -> pd.DataFrame:
            is_happy = rng.random(count) < happy
            value = rng.normal(is_happy * 1.0, 1)
            return pd.DataFrame({"value": value, "emotion": np.where(is_happy, "happy", "sad")})

        current, reference = drawn(200, 0.8), drawn(1000, 0.3)
        is_happy = reference["emotion"] == "happy"
        weights = np.where(is_happy, 0.8 / is_happy.mean(), 0.2 / (1 - is_happy.mean()))
        alarms_plain += p_of_numbers(current["value"], reference["value"]) < 0.05
        alarms_weighted += p_of_numbers(current["value"], reference["value"], weights) < 0.05
        assert 0 < worth(weights) < 1000

    assert alarms_plain > 180
    assert alarms_weighted <= 20


def test_a_larger_share_is_seen_and_a_smaller_one_is_not() -> None:
    """The count is tested to one side."""
    assert p_of_more(12, 100, 20, 1000) < 1e-4
    assert p_of_more(0, 100, 20, 1000) == pytest.approx(1)
