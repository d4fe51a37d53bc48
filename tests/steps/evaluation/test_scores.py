from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.classifier import Classifier
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.steps.evaluation.gate import decide
from emotion_assets.steps.evaluation.scores import (
    SCORE_NAMES,
    LabelledPredictions,
    compute_scores,
    predict_majority,
    predict_split,
    remove_temperature,
    risk_coverage,
)
from emotion_assets.steps.splits.splits import Split
from tests.steps.evaluation.helpers import simulate


def test_scores_of_a_small_example_by_hand() -> None:
    """Four images, three correct: every score equals a count by hand."""
    probabilities = np.array(
        [[0.6, 0.1, 0.1, 0.1, 0.1], [0.5, 0.2, 0.1, 0.1, 0.1], [0.1, 0.1, 0.6, 0.1, 0.1], [0.1, 0.1, 0.6, 0.1, 0.1]],
        dtype=np.float32,
    )
    scores = compute_scores(LabelledPredictions("x", probabilities, np.array([0, 1, 2, 2])))

    assert scores.accuracy == 0.75
    assert scores.recall == {"angry": 1, "fear": 0, "happy": 1, "sad": 0, "surprise": 0}
    assert scores.precision["angry"] == 0.5
    assert scores.support == {"angry": 1, "fear": 1, "happy": 2, "sad": 0, "surprise": 0}
    assert scores.confusion[1] == [1, 0, 0, 0, 0]
    # Sad and surprise have no images, so their recall of 0 says nothing.
    assert replace(scores, recall=scores.recall | {"fear": 0.5}).weakest == "fear"
    assert scores.macro_f1 == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert scores.log_loss == pytest.approx(-np.log([0.6, 0.2, 0.6, 0.6]).mean(), rel=1e-5)
    # Three predictions with confidence 0.6 are correct; one with 0.5 is wrong.
    assert scores.calibration_error == pytest.approx((3 * 0.4 + 0.5) / 4, rel=1e-5)
    assert scores.flatten()["test/recall_happy"] == 1


def test_images_are_counted_though_every_prediction_is_wrong() -> None:
    """So that the gate can reject such a model, and a confidence of 1 is in the last bin."""
    predictions = LabelledPredictions("x", np.eye(5, dtype=np.float32)[[1, 1, 0]], np.array([0, 0, 1]))

    scores = compute_scores(predictions)

    assert [type(count) for count in scores.support.values()] == [int] * 5
    assert scores.support["angry"] == 2
    assert scores.calibration_error == 1
    assert not decide(predictions).is_accepted


def test_an_empty_split_is_rejected(bundle_dir: Path) -> None:
    """Without images there is nothing to score."""
    empty = Split(np.empty((0, 64, 64), dtype=np.uint8), np.empty(0, dtype=np.int64), ())
    with pytest.raises(UnusableDataError, match="no images"):
        predict_split(Classifier(bundle_dir), empty)


def test_the_majority_baseline_predicts_the_class_priors() -> None:
    """Its accuracy is the fraction of the most frequent class, and it is calibrated."""
    split = Split(np.zeros((4, 64, 64), dtype=np.uint8), np.array([0, 2, 2, 2]), ("",) * 4)

    scores = compute_scores(predict_majority(split))

    assert scores.accuracy == 0.75
    assert scores.calibration_error == pytest.approx(0, abs=1e-6)


def test_removing_the_temperature_keeps_the_predicted_class() -> None:
    """A temperature below 1 had sharpened the probabilities: without it they are flatter."""
    predictions = simulate(0.7)
    raw = remove_temperature(predictions, 0.5)

    assert (raw.is_correct == predictions.is_correct).all()
    assert (raw.confidence < predictions.confidence).all()


def test_risk_coverage_ends_at_the_accuracy() -> None:
    """At full coverage the selective accuracy is the accuracy."""
    predictions = simulate(0.7)

    curve = risk_coverage(predictions)

    assert [point["coverage"] for point in curve] == pytest.approx(np.arange(0.1, 1.05, 0.1))
    assert curve[-1]["accuracy"] == predictions.is_correct.mean()


def test_the_most_confident_images_come_first() -> None:
    """Five confident predictions are correct, five uncertain ones are wrong."""
    probabilities = np.full((10, 5), 0.025, dtype=np.float32)
    probabilities[:, 0] = 0.9
    probabilities[::2] = [0.6, 0.1, 0.1, 0.1, 0.1]

    curve = risk_coverage(LabelledPredictions("x", probabilities, (np.arange(10) + 1) % 2))

    assert [point["accuracy"] for point in curve[:5]] == [1] * 5
    assert curve[-1]["accuracy"] == 0.5
    assert [point["min_confidence"] for point in curve] == pytest.approx([0.9] * 5 + [0.6] * 5)


def test_a_split_of_other_classes_is_rejected(bundle_dir: Path) -> None:
    """In another order, every answer would be another class."""
    split = Split(np.zeros((1, 64, 64), dtype=np.uint8), np.zeros(1, dtype=np.int64), ("",), EMOTIONS[::-1])

    with pytest.raises(UnusableDataError, match="the splits have surprise, sad"):
        predict_split(Classifier(bundle_dir), split)


def test_removing_the_temperature_gives_the_logits_back() -> None:
    logits = np.random.default_rng(0).normal(0, 2, (50, 5))
    raw, sharp = (np.exp(logits / t) / np.exp(logits / t).sum(axis=1, keepdims=True) for t in (1, 0.5))
    predictions = LabelledPredictions("x", sharp.astype(np.float32), np.zeros(50, dtype=np.int64))

    assert remove_temperature(predictions, 0.5).probabilities == pytest.approx(raw, abs=1e-5)


def test_the_majority_knows_classes_without_images() -> None:
    split = Split(np.zeros((3, 64, 64), dtype=np.uint8), np.array([0, 1, 1]), ("",) * 3)

    assert predict_majority(split).probabilities.shape == (3, 5)


def test_every_score_is_flattened() -> None:
    scores = compute_scores(simulate(0.7))

    assert {name.removeprefix("test/") for name in scores.flatten()} == {*SCORE_NAMES} | {
        f"recall_{emotion}" for emotion in EMOTIONS
    }
    assert np.sum(scores.confusion, axis=1).tolist() == list(scores.support.values())
