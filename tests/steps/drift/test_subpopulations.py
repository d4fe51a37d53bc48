from __future__ import annotations

import numpy as np
import pytest

from emotion_assets.steps.drift.pvalues import mean_pvalue, num_independent_tests
from emotion_assets.steps.drift.subpopulations import CorruptionDetector, Floats, SubpopulationDetector


def draw(count: int, seed: int, shift: float = 0.0, num_features: int = 4) -> Floats:
    return np.random.default_rng(seed).normal(shift, 1, (count, num_features))


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
    """Without a harmful corruption, or with one that looks much like clean images, nothing is found."""
    window, weights = draw(200, 5, 2), np.ones(1000)

    assert SubpopulationDetector([]).detect(window, weights) is None
    for shift in (0.0, 0.3):
        same = SubpopulationDetector([corruption("unseen", shift)])
        assert same.detect(window, weights) is None


def test_the_p_value_is_corrected_for_the_independent_corruptions() -> None:
    """A third corruption that equals the second one adds no test."""
    corruptions = [corruption(name, shift) for name, shift in (("brighter", 2), ("darker", -2), ("dark", -2))]
    window = np.vstack([draw(190, 5), draw(10, 6, 2)])
    num_tests = num_independent_tests(np.stack([each.clean_ratios for each in corruptions]))
    alone = [
        mean_pvalue(each.log_likelihood_ratios(window), each.clean_ratios, np.ones(1000), num_tests)
        for each in corruptions
    ]

    found = SubpopulationDetector(corruptions).detect(window, np.ones(1000))

    assert found is not None
    assert 1 < num_tests < 2.5
    assert found.p_value == pytest.approx(1 - (1 - min(alone)) ** num_tests)


def test_no_more_than_all_images_are_corrupted(detector: SubpopulationDetector) -> None:
    """Even if each of them looks more corrupted than those that the detector knows, or none does."""
    windows = draw(200, 6, 4.0), np.zeros((2000, 4))
    corrupted, clean = (detector.detect(window, np.ones(1000)) for window in windows)

    assert corrupted is not None
    assert (corrupted.fraction, corrupted.loss) == (1, 0.5)
    assert clean is not None
    assert clean.fraction == 0
    assert clean.p_value == pytest.approx(1)


def test_images_of_a_frequent_class_are_no_subpopulation() -> None:
    """Faces of a class that resembles a corruption, in a window of this class only."""
    usual, bright = (np.vstack([draw(count, seed), draw(count, seed + 3, 1)]) for count, seed in ((150, 3), (500, 4)))
    known = CorruptionDetector("brighter", 0.5, usual, bright, draw(300, 1, 2.5), draw(300, 2, 2.5))

    equal, weighted = (
        SubpopulationDetector([known]).detect(draw(200, 20, 1), np.repeat([weight, 1.0], 500)) for weight in (1.0, 0.0)
    )

    assert equal is not None
    assert equal.p_value < 0.001
    assert weighted is not None
    assert weighted.p_value > 0.1
    assert weighted.fraction < 0.03


def test_a_change_of_spread_is_found() -> None:
    """The corrupted images are on both sides of the clean ones, and their mean is the same."""
    noisier = CorruptionDetector("noisier", 0.5, draw(300, 3), draw(1000, 4), 2 * draw(300, 1), 2 * draw(300, 2))

    found = SubpopulationDetector([noisier]).detect(np.vstack([draw(140, 5), 2 * draw(60, 6)]), np.ones(1000))

    assert found is not None
    assert found.p_value < 1e-6
    assert found.fraction == pytest.approx(0.3, abs=0.08)


def test_the_ratio_rises_with_the_corruption() -> None:
    """Step by step, from images without it to images that are changed as far as the known ones."""
    steps = np.linspace(-1, 2, 10)[:, None] * np.ones(4)

    ratios = corruption("brighter", 2).log_likelihood_ratios(steps)

    assert (np.diff(ratios) > -0.01).all()
    assert ratios[0] < 0 < ratios[-1]


def test_the_fraction_is_measured_by_images_not_fitted_to() -> None:
    """Forty images with twelve features are fitted so well that others seem hardly corrupted beside them."""
    clean, clean_held_out, fitted, held_out = (
        draw(count, seed, shift, num_features=12)
        for count, seed, shift in ((40, 3, 0.0), (1000, 4, 0.0), (40, 1, 0.5), (300, 2, 0.5))
    )
    brighter = CorruptionDetector("brighter", 0.5, clean, clean_held_out, fitted, held_out)
    window = np.vstack([draw(700, 5, num_features=12), draw(300, 6, 0.5, num_features=12)])

    found = SubpopulationDetector([brighter]).detect(window, np.ones(1000))

    assert found is not None
    assert found.fraction == pytest.approx(0.3, abs=0.08)


def test_few_clean_images_make_no_image_strong_evidence() -> None:
    """Higher than all of fifty is one in ten at most, higher than all of a thousand one in a hundred."""
    few, many = (
        CorruptionDetector("brighter", 0.5, draw(300, 3), draw(count, 4), draw(300, 1, 2), draw(300, 2, 2))
        .log_likelihood_ratios(np.full((1, 4), 2.0))
        .item()
        for count in (50, 1000)
    )

    assert 0 < few < many - 0.3
