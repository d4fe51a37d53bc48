from __future__ import annotations

import numpy as np
import pytest

from emotion_assets.steps.evaluation.intervals import compute_intervals, proportion_interval
from emotion_assets.steps.evaluation.scores import SCORE_NAMES, LabelledPredictions, Scores, compute_scores


def simulated(count: int, seed: int = 0, skill: float = 1.5) -> LabelledPredictions:
    """Predictions of a model; a skill of 1.5 gives an accuracy of about two thirds, 5 of 0.99."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 5, count)
    logits = rng.normal(0, 1, (count, 5))
    logits[np.arange(count), truth] += skill
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return LabelledPredictions("x", probabilities.astype(np.float32), truth)


def flatten(scores: Scores) -> dict[str, float]:
    """Return all scores by the names of their intervals."""
    rates = ("precision", "recall", "f1")
    by_emotion = {f"{rate}_{name}": value for rate in rates for name, value in getattr(scores, rate).items()}
    return {name: getattr(scores, name) for name in SCORE_NAMES} | by_emotion


def test_every_interval_contains_its_score() -> None:
    """The measured value is inside; names cover all scores and every emotion's rates."""
    predictions = simulated(800)
    scores = flatten(compute_scores(predictions))

    found = compute_intervals(predictions)

    assert set(found) == set(scores)
    for name, (low, high) in found.items():
        assert 0 <= low < scores[name] < high


def test_the_interval_of_accuracy_has_the_textbook_width() -> None:
    """About four standard errors of a proportion."""
    predictions = simulated(2000)
    low, high = compute_intervals(predictions)["accuracy"]
    accuracy = compute_scores(predictions).accuracy

    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(accuracy * (1 - accuracy) / 2000), rel=0.1)


def test_intervals_shrink_with_more_images_and_repeat() -> None:
    """Four times as many images give half the width; the same predictions give the same numbers."""
    few, many = compute_intervals(simulated(500)), compute_intervals(simulated(2000))

    assert compute_intervals(simulated(500)) == few
    ratio = (few["macro_f1"][1] - few["macro_f1"][0]) / (many["macro_f1"][1] - many["macro_f1"][0])
    assert 1.6 < ratio < 2.5


@pytest.mark.parametrize(
    ("num_images", "skill", "names"),
    [
        (600, 1.5, ("accuracy", "macro_f1", "log_loss", "calibration_error", "recall_fear", "f1_sad")),
        (80, 5.0, ("accuracy", "macro_f1", "precision_happy", "recall_angry", "f1_sad")),
    ],
)
def test_intervals_have_about_their_nominal_coverage(num_images: int, skill: float, names: tuple[str, ...]) -> None:
    """At least 90 % of them contain the true value, also where few images of an accurate model are nearly all right."""
    population = simulated(100_000, seed=5, skill=skill)
    truth = flatten(compute_scores(population))
    rng = np.random.default_rng(6)
    hits = dict.fromkeys(names, 0)
    for _ in range(120):
        chosen = rng.integers(0, 100_000, num_images)
        sample = LabelledPredictions("x", population.probabilities[chosen], population.class_indices[chosen])
        found = compute_intervals(sample)
        for name in names:
            low, high = found[name]
            hits[name] += low <= truth[name] <= high

    assert all(number >= 0.9 * 120 for number in hits.values()), hits


def test_a_perfect_model_may_have_been_lucky() -> None:
    """A hundred correct predictions, twenty of a class, prove no perfection."""
    predictions = LabelledPredictions("x", np.eye(5, dtype=np.float32)[np.arange(100) % 5], np.arange(100) % 5)

    found = compute_intervals(predictions)

    assert found["accuracy"] == pytest.approx((0.963, 1), abs=0.001)
    assert found["recall_fear"] == pytest.approx((0.839, 1), abs=0.001)
    assert found["macro_f1"] == found["accuracy"]
    assert found["log_loss"] == pytest.approx((0, 0), abs=1e-6)
    assert found["calibration_error"][1] < 1e-6


def test_the_macro_f1_varies_as_in_resamples() -> None:
    """The delta method gives the spread that a bootstrap gives; most images are of one class."""
    predictions = simulated(3000)
    kept = np.flatnonzero((predictions.class_indices == 2) | (np.arange(3000) % 3 == 0))
    few = LabelledPredictions("x", predictions.probabilities[kept], predictions.class_indices[kept])
    rng = np.random.default_rng(1)
    resamples = [rng.integers(0, len(kept), len(kept)) for _ in range(200)]

    values = [
        compute_scores(LabelledPredictions("x", few.probabilities[each], few.class_indices[each])).macro_f1
        for each in resamples
    ]

    low, high = compute_intervals(few)["macro_f1"]
    assert high - low == pytest.approx(2 * 1.96 * np.std(values), rel=0.15)


def test_a_class_without_images_has_intervals() -> None:
    """Images of another source may have only some of the classes; nothing is known about the others."""
    predictions = simulated(60)
    kept = predictions.class_indices != 3
    few = LabelledPredictions("x", predictions.probabilities[kept], predictions.class_indices[kept])

    found = compute_intervals(few)

    assert found["recall_sad"] == (0, 1)
    assert found["macro_f1"][0] < compute_scores(few).macro_f1 < found["macro_f1"][1]


def test_an_effective_sample_size_is_at_most_the_number_of_units() -> None:
    """A variance of twice the binomial one halves the sample; a smaller one counts as chance."""
    binomial = 0.8 * 0.2 / 100

    assert proportion_interval(0.8, 100, binomial) == pytest.approx(proportion_interval(0.8, 100))
    assert proportion_interval(0.8, 100, 2 * binomial) == pytest.approx(proportion_interval(0.8, 50))
    assert proportion_interval(0.8, 100, binomial / 2) == proportion_interval(0.8, 100)
