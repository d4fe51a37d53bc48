from __future__ import annotations

import numpy as np
import pytest

from emotion_assets.steps.drift.subpopulations import CorruptionDetector, Floats, SubpopulationDetector


def draw(count: int, seed: int, shift: float = 0.0) -> Floats:
    return np.random.default_rng(seed).normal(shift, 1, (count, 4))


def corruption(name: str, shift: float, loss: float = 0.5) -> CorruptionDetector:
    return CorruptionDetector(name, loss, draw(300, 3), draw(1000, 4), draw(300, 1, shift), draw(300, 2, shift))


@pytest.fixture(scope="module")
def detector() -> SubpopulationDetector:
    """A detector of two opposite corruptions."""
    return SubpopulationDetector([corruption("brighter", 2), corruption("darker", -2)])


@pytest.mark.parametrize(("name", "shift"), [("brighter", 2.0), ("darker", -2.0)])
def test_a_subpopulation_is_found_and_measured(detector: SubpopulationDetector, name: str, shift: float) -> None:
    """Three images in ten are found, with their corruption, their fraction and their cost for the whole window."""
    found = detector.detect(np.vstack([draw(140, 5), draw(60, 6, shift)]), np.ones(1000))

    assert found is not None
    assert found.corruption == name
    assert found.fraction == pytest.approx(0.3, abs=0.08)
    assert found.loss == pytest.approx(found.fraction * 0.5)
    assert found.p_value < 1e-6


def test_clean_windows_are_seldom_significant(detector: SubpopulationDetector) -> None:
    """The p-value is corrected for both corruptions."""
    found = [detector.detect(draw(200, seed), np.ones(1000)) for seed in range(100, 200)]

    assert sum(each is not None and each.p_value < 0.01 for each in found) <= 3


def test_what_cannot_be_separated_is_not_tested() -> None:
    """Without a harmful corruption, or with one that looks like clean images, nothing is found."""
    window, weights = draw(200, 5, 2), np.ones(1000)

    assert SubpopulationDetector([]).detect(window, weights) is None
    same = SubpopulationDetector([corruption("unseen", 0.0)])
    assert same.detect(window, weights) is None
