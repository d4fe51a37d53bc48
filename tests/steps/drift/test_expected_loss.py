from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.features import probability_columns
from emotion_assets.steps.drift.expected_loss import expected_losses, fit_pooling
from tests.steps.drift.helpers import calibrated_window


def predict(logits: np.ndarray, truth: pd.Series[str]) -> pd.DataFrame:
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    table = pd.DataFrame(probabilities, columns=probability_columns(EMOTIONS))
    table["emotion"] = [EMOTIONS[index] for index in probabilities.argmax(axis=1)]
    return table.assign(true_emotion=truth)


def test_a_changed_prediction_costs_the_difference_of_the_probabilities() -> None:
    """0.7 before and 0.1 after, by the clean image alone; an equal prediction costs nothing."""
    clean = predict(np.log([[0.7, 0.1, 0.1, 0.05, 0.05]] * 2), pd.Series(["angry", "angry"]))
    corrupted = predict(np.log([[0.1, 0.7, 0.1, 0.05, 0.05], [0.6, 0.2, 0.1, 0.05, 0.05]]), clean["true_emotion"])

    assert expected_losses(clean, corrupted, 0) == pytest.approx([0.6, 0])


def test_the_loss_is_that_of_the_labels() -> None:
    """Corrupted images of half the evidence, with noise of their own: both answers together are unbiased."""
    rng, clean = np.random.default_rng(0), calibrated_window(20_000, seed=0)
    index = clean["true_emotion"].map({emotion: i for i, emotion in enumerate(EMOTIONS)}).to_numpy()
    own = rng.normal(0, 1, (len(clean), 5))
    own[np.arange(len(clean)), index] += 1
    corrupted = predict(own, clean["true_emotion"])
    truth = (clean["emotion"] == clean["true_emotion"]).mean() - (corrupted["emotion"] == clean["true_emotion"]).mean()

    weight = fit_pooling(clean, [corrupted])
    alone, pooled = (expected_losses(clean, corrupted, value).mean() for value in (0, weight))

    assert 0.05 < weight < 0.5
    assert alone > truth + 0.02
    assert abs(pooled - truth) < abs(alone - truth) / 2


def test_what_a_corruption_destroys_gets_no_weight() -> None:
    clean = calibrated_window(5000, seed=0)
    noise = predict(np.random.default_rng(1).normal(0, 1, (len(clean), 5)), clean["true_emotion"])

    assert fit_pooling(clean, [noise]) < 0.02


def test_certain_predictions_have_a_loss() -> None:
    """A model that is certain of one class before and of another after gives the others a probability of 0."""
    truth = pd.Series(["angry"])
    clean, corrupted = (predict(np.log([[0.2] * 5]), truth) for _ in range(2))
    for table, certain in ((clean, "angry"), (corrupted, "fear")):
        table.loc[0, [name for name in table if name.startswith("p_")]] = 0.0
        table.loc[0, f"p_{certain}"] = 1.0
        table["emotion"] = certain

    assert expected_losses(clean, corrupted, 0.3) == pytest.approx([1], abs=0.01)
