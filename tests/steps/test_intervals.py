from __future__ import annotations

import numpy as np
import pytest

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.steps.evaluation.intervals import intervals
from emotion_assets.steps.evaluation.scores import LabelledPredictions, score


def simulated(count: int, seed: int = 0) -> LabelledPredictions:
    """Answers of a model that is right in about two of three cases."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 5, count)
    logits = rng.normal(0, 1, (count, 5))
    logits[np.arange(count), truth] += 1.5
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return LabelledPredictions("x", probabilities.astype(np.float32), truth)


def test_every_interval_holds_its_score() -> None:
    """The measured value lies inside; names cover all scores and every emotion's rates."""
    answers = simulated(800)
    scores = score(answers)

    found = intervals(answers)

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
    """About four standard errors of a fraction."""
    answers = simulated(2000)
    low, high = intervals(answers)["accuracy"]
    accuracy = score(answers).accuracy

    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(accuracy * (1 - accuracy) / 2000), rel=0.1)


def test_intervals_shrink_with_more_images_and_repeat_with_the_seed() -> None:
    """Four times as many images give half the width; the same seed gives the same numbers."""
    few, many = intervals(simulated(500)), intervals(simulated(2000))

    assert intervals(simulated(500)) == few
    ratio = (few["macro_f1"][1] - few["macro_f1"][0]) / (many["macro_f1"][1] - many["macro_f1"][0])
    assert 1.6 < ratio < 2.5


def test_intervals_contain_the_truth_about_as_often_as_they_say() -> None:
    """Of 120 test sets, between 90 and 99 % of the intervals of accuracy and calibration error hold the true value."""
    everyone = simulated(200_000, seed=5)
    truth = score(everyone)
    rng = np.random.default_rng(6)
    hits = {"accuracy": 0, "calibration_error": 0}
    for number in range(120):
        chosen = rng.integers(0, 200_000, 600)
        sample = LabelledPredictions("x", everyone.probabilities[chosen], everyone.class_indices[chosen])
        found = intervals(sample, num_draws=400, seed=number)
        for name in hits:
            low, high = found[name]
            hits[name] += low <= getattr(truth, name) <= high

    assert all(0.9 * 120 <= number <= 0.995 * 120 for number in hits.values()), hits


def test_a_perfect_model_has_intervals_without_width() -> None:
    """Nothing varies when every answer is right and certain."""
    answers = LabelledPredictions("x", np.eye(5, dtype=np.float32)[np.arange(100) % 5], np.arange(100) % 5)

    found = intervals(answers)

    assert found["accuracy"] == (1, 1)
    assert found["calibration_error"][1] < 1e-6
