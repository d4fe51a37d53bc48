from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import fisher_exact, ks_2samp

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.steps.drift.pvalues import (
    chi2_pvalue,
    effective_sample_size,
    fisher_pvalue,
    ks_pvalue,
    mean_pvalue,
    num_independent_tests,
)


def test_equal_weights_do_not_change_p_values() -> None:
    """With the same weight for every row the tests are the plain ones, whatever that weight is."""
    rng = np.random.default_rng(0)
    current, reference = pd.Series(rng.normal(0.1, 1, 200)), pd.Series(rng.normal(0, 1, 3000))
    emotions = pd.Series(rng.choice(EMOTIONS, 200)), pd.Series(rng.choice(EMOTIONS, 3000))
    weights = np.full(3000, 7.0)

    expected = ks_2samp(current, reference, method="asymp").pvalue
    assert ks_pvalue(current, reference) == pytest.approx(expected)
    assert ks_pvalue(current, reference, weights) == pytest.approx(expected)
    assert chi2_pvalue(*emotions, weights) == pytest.approx(chi2_pvalue(*emotions))
    assert effective_sample_size(weights) == pytest.approx(3000)


def test_weights_that_match_the_class_priors_raise_no_alarm() -> None:
    """A reference weighted to the priors of the window is as good as one that was drawn with them."""
    alarms_plain = alarms_weighted = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)

        def draw(count: int, happy: float, rng: np.random.Generator = rng) -> pd.DataFrame:
            is_happy = rng.random(count) < happy
            value = rng.normal(is_happy * 1.0, 1)
            return pd.DataFrame({"value": value, "emotion": np.where(is_happy, "happy", "sad")})

        current, reference = draw(200, 0.8), draw(1000, 0.3)
        is_happy = reference["emotion"] == "happy"
        weights = np.where(is_happy, 0.8 / is_happy.mean(), 0.2 / (1 - is_happy.mean()))
        alarms_plain += ks_pvalue(current["value"], reference["value"]) < 0.05
        alarms_weighted += ks_pvalue(current["value"], reference["value"], weights) < 0.05
        assert 0 < effective_sample_size(weights) < 1000

    assert alarms_plain > 180
    assert alarms_weighted <= 20


def test_fishers_test_is_one_sided() -> None:
    """A larger proportion is significant, a smaller one is not."""
    assert fisher_pvalue(12, 100, 20, 1000) < 1e-4
    assert fisher_pvalue(0, 100, 20, 1000) == pytest.approx(1)


def test_a_higher_mean_of_skewed_values_keeps_its_level() -> None:
    """Where one image in fifty has a high value, p-values keep their level; a real change is significant."""
    rng = np.random.default_rng(6)
    reference = (rng.random(1500) < 0.02).astype(float)
    weights = np.ones(len(reference))

    p_values = [mean_pvalue((rng.random(50) < 0.02).astype(float), reference, weights) for _ in range(2000)]

    assert np.mean(np.array(p_values) < 0.01) <= 0.015
    assert np.mean(np.array(p_values) < 0.1) >= 0.02
    assert mean_pvalue((rng.random(50) < 0.3).astype(float), reference, weights) < 1e-4
    assert mean_pvalue(np.zeros(50), np.zeros(1500), weights) == 1.0


def test_an_unlucky_reference_seldom_raises_many_alarms() -> None:
    """Two hundred images estimate a rare value poorly; six tests on them must allow for that."""
    rng = np.random.default_rng(8)
    num_bad = 0
    for _ in range(150):
        references = rng.random((6, 200)) < 0.02
        windows = rng.random((6, 20, 500)) < 0.02
        alarms = [
            [mean_pvalue(window * 1.0, each * 1.0, np.ones(200), num_tests=6) < 0.01 / 6 for window in some]
            for each, some in zip(references, windows, strict=True)
        ]
        num_bad += np.mean(np.any(alarms, axis=0)) > 0.1

    assert num_bad <= 0.08 * 150


def test_weights_change_the_expected_mean() -> None:
    """Twice as many high values are no change where the weights expect them."""
    reference = np.tile([0.0, 0.0, 0.0, 1.0], 250)
    current = np.tile([0.0, 1.0], 100)

    assert mean_pvalue(current, reference, np.ones(1000)) < 1e-6
    assert mean_pvalue(current, reference, np.where(reference > 0, 3.0, 1.0)) > 0.3


def test_equal_tests_count_once() -> None:
    """Copies of a test add nothing; independent ones count each."""
    values = np.random.default_rng(3).normal(0, 1, (4, 2000))

    assert num_independent_tests(values) == pytest.approx(4, abs=0.05)
    assert num_independent_tests(np.vstack([values[:2], values[:2]])) == pytest.approx(2, abs=0.05)
    assert num_independent_tests(values[:1]) == pytest.approx(1)


def test_a_rare_class_is_not_significant_alone() -> None:
    """Two images of classes seen once or twice in two thousand are chance in one window of ten."""
    reference = pd.Series(["happy"] * 1200 + ["sad"] * 797 + ["fear"] * 2 + ["angry"])
    current = pd.Series(["happy"] * 30 + ["sad"] * 18 + ["fear"] + ["angry"])

    assert chi2_pvalue(current, reference) > 0.001
    assert chi2_pvalue(pd.Series(["happy"] * 20 + ["sad"] * 20 + ["fear"] * 10), reference) < 1e-6


def test_each_rare_class_is_a_test_of_its_own() -> None:
    """The smallest p-value counts for two rare classes and for the others together."""
    reference = pd.Series(["happy"] * 1200 + ["sad"] * 792 + ["fear"] * 4 + ["angry"] * 4)
    current = pd.Series(["happy"] * 29 + ["sad"] * 18 + ["fear"] * 3)

    alone = fisher_exact([[3, 47], [4, 1996]]).pvalue

    assert chi2_pvalue(current, reference) == pytest.approx(2 * 2 * alone)


def test_classes_without_reference_predictions_may_take_over() -> None:
    """Nothing is left to pool, and the change is unmistakable."""
    reference = pd.Series(["happy"] * 15 + ["sad"] * 15)
    current = pd.Series(["fear"] * 150 + ["surprise"] * 150)

    assert chi2_pvalue(current, reference) < 1e-12
