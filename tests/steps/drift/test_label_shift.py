from __future__ import annotations

import numpy as np
import pytest

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.steps.drift.label_shift import class_prior_weights, estimate_class_priors
from tests.steps.drift.helpers import calibrated_window


def test_class_priors_are_estimated_from_predictions() -> None:
    """Seven happy faces in ten are found, though the model was trained with two in ten."""
    reference = calibrated_window(3000, seed=0)

    priors = estimate_class_priors(calibrated_window(1000, seed=1, happy=0.7), reference)

    assert priors.sum() == pytest.approx(1)
    assert priors[EMOTIONS.index("happy")] == pytest.approx(0.7, abs=0.05)


def test_a_network_with_class_weights_finds_the_same_priors() -> None:
    """It predicts one class too often, in the reference as well as in the window."""
    names = [f"p_{emotion}" for emotion in EMOTIONS]
    reference, current = calibrated_window(3000, seed=0), calibrated_window(1000, seed=1, happy=0.7)
    for table in (reference, current):
        table["p_fear"] *= 4
        table[names] = table[names].div(table[names].sum(axis=1), axis=0)

    priors = estimate_class_priors(current, reference)

    assert priors[EMOTIONS.index("happy")] == pytest.approx(0.7, abs=0.05)
    assert priors[EMOTIONS.index("fear")] == pytest.approx(0.075, abs=0.03)


def test_weights_give_the_reference_these_priors() -> None:
    """The weighted frequency of each true class equals its prior."""
    reference = calibrated_window(3000, seed=0)
    priors = np.array([0.1, 0.1, 0.6, 0.1, 0.1])

    weights = class_prior_weights(reference, priors)

    weighted = [weights[(reference["true_emotion"] == emotion).to_numpy()].sum() for emotion in EMOTIONS]
    assert np.array(weighted) / weights.sum() == pytest.approx(priors, abs=0.005)


def test_a_class_that_the_reference_lacks_has_finite_priors() -> None:
    """Neither the estimate nor the weights divide by zero."""
    reference = calibrated_window(300, seed=0)
    reference = reference[reference["true_emotion"] != "fear"]

    priors = estimate_class_priors(calibrated_window(300, seed=1), reference)

    assert np.isfinite(priors).all()
    assert np.isfinite(class_prior_weights(reference, priors)).all()
