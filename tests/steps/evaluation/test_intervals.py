from __future__ import annotations

import numpy as np
import pytest

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.steps.evaluation.intervals import compute_intervals, image_terms, scores_from_sums
from emotion_assets.steps.evaluation.scores import LabelledPredictions, compute_scores


def simulated(count: int, seed: int = 0) -> LabelledPredictions:
    """Predictions of a model with an accuracy of about two thirds."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 5, count)
    logits = rng.normal(0, 1, (count, 5))
    logits[np.arange(count), truth] += 1.5
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return LabelledPredictions("x", probabilities.astype(np.float32), truth)


def test_every_interval_contains_its_score() -> None:
    """The measured value is inside; names cover all scores and every emotion's rates."""
    predictions = simulated(800)
    scores = compute_scores(predictions)

    found = compute_intervals(predictions)

    assert set(found) == {"accuracy", "macro_f1", "log_loss", "calibration_error"} | {
        f"{rate}_{emotion}" for rate in ("precision", "recall", "f1") for emotion in EMOTIONS
    }
    for name in ("accuracy", "macro_f1", "log_loss", "calibration_error"):
        low, high = found[name]
        assert 0 <= low < getattr(scores, name) < high
    for rate in ("precision", "recall", "f1"):
        for emotion in EMOTIONS:
            low, high = found[f"{rate}_{emotion}"]
            assert low < getattr(scores, rate)[emotion] < high


def test_the_interval_of_accuracy_has_the_textbook_width() -> None:
    """About four standard errors of a proportion."""
    predictions = simulated(2000)
    low, high = compute_intervals(predictions)["accuracy"]
    accuracy = compute_scores(predictions).accuracy

    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(accuracy * (1 - accuracy) / 2000), rel=0.1)


def test_intervals_shrink_with_more_images_and_repeat_with_the_seed() -> None:
    """Four times as many images give half the width; the same seed gives the same numbers."""
    few, many = compute_intervals(simulated(500)), compute_intervals(simulated(2000))

    assert compute_intervals(simulated(500)) == few
    ratio = (few["macro_f1"][1] - few["macro_f1"][0]) / (many["macro_f1"][1] - many["macro_f1"][0])
    assert 1.6 < ratio < 2.5


def test_intervals_have_about_their_nominal_coverage() -> None:
    """Of 120 test sets, between 90 and 99 % of the intervals of accuracy and calibration error contain the true value."""
    population = simulated(200_000, seed=5)
    truth = compute_scores(population)
    rng = np.random.default_rng(6)
    hits = {"accuracy": 0, "calibration_error": 0}
    for number in range(120):
        chosen = rng.integers(0, 200_000, 600)
        sample = LabelledPredictions("x", population.probabilities[chosen], population.class_indices[chosen])
        found = compute_intervals(sample, num_resamples=400, seed=number)
        for name in hits:
            low, high = found[name]
            hits[name] += low <= getattr(truth, name) <= high

    assert all(0.9 * 120 <= number <= 0.995 * 120 for number in hits.values()), hits


def test_a_perfect_model_has_intervals_of_zero_width() -> None:
    """Nothing varies when every prediction is correct with confidence 1."""
    predictions = LabelledPredictions("x", np.eye(5, dtype=np.float32)[np.arange(100) % 5], np.arange(100) % 5)

    found = compute_intervals(predictions)

    assert found["accuracy"] == (1, 1)
    assert found["calibration_error"][1] < 1e-6


def test_scores_from_sums_equal_the_scores() -> None:
    """The sums over all images, each drawn once, give the measured scores."""
    predictions = simulated(500)
    scores = compute_scores(predictions)

    found = scores_from_sums(image_terms(predictions).sum(axis=0, keepdims=True), EMOTIONS)

    for name in ("accuracy", "macro_f1", "log_loss", "calibration_error"):
        assert found[name][0] == pytest.approx(getattr(scores, name), rel=1e-6)
    assert found["recall_sad"][0] == pytest.approx(scores.recall["sad"])


def test_rates_of_sums_equal_the_scores() -> None:
    """Every emotion's precision, recall and F1; where there are none, 0."""
    predictions = simulated(500)
    predictions.probabilities[:200, 1] += 1
    scores = compute_scores(predictions)

    found = scores_from_sums(image_terms(predictions).sum(axis=0, keepdims=True), EMOTIONS)

    for rate in ("precision", "recall", "f1"):
        assert [found[f"{rate}_{emotion}"][0] for emotion in EMOTIONS] == pytest.approx(
            [*getattr(scores, rate).values()]
        )
    assert found["log_loss"][0] == pytest.approx(scores.log_loss, rel=1e-6)


def test_a_class_without_images_has_intervals() -> None:
    """Images of another source may have only some of the classes."""
    predictions = simulated(60)
    kept = predictions.class_indices != 3
    few = LabelledPredictions("x", predictions.probabilities[kept], predictions.class_indices[kept])

    assert compute_intervals(few, num_resamples=50)["recall_sad"] == (0, 0)
