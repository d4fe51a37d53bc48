"""Test whether other class priors alone explain a change of the predictions.

If people merely smile more often, predictions for smiling faces stay what they were. Class priors are estimated from
the predictions (Saerens, Latinne and Decaestecker 2002, "Adjusting the outputs of a classifier to new a priori
probabilities") and the reference is reweighted to them: if it then looks like the window, the shift is harmless.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from emotion_assets.core.features import probability_columns
from emotion_assets.steps.reference.reference import TRUE_EMOTION_COLUMN, class_indices, emotions_of

_NUM_STEPS: Final = 200
_MIN_PRIOR: Final = 1e-4


def estimate_class_priors(current: pd.DataFrame, reference: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Estimate the class priors of a window by expectation maximization, float (class,)."""
    names, before = probability_columns(emotions_of(reference)), class_priors(reference)
    probabilities, expected = (table[names].to_numpy(dtype=np.float64) for table in (current, reference))
    # The method needs mean probabilities that are the class frequencies, which class weights prevent (Alexandari et al.
    # 2020, "Maximum likelihood with bias-corrected calibration is hard-to-beat at label shift adaptation").
    factors = np.ones(len(names))
    for _ in range(_NUM_STEPS):
        factors *= before / np.maximum(_reweight(expected, factors).mean(axis=0), _MIN_PRIOR)
    probabilities = _reweight(probabilities, factors)
    priors = before.copy()
    for _ in range(_NUM_STEPS):
        priors = np.maximum(_reweight(probabilities, priors / before).mean(axis=0), _MIN_PRIOR)
        priors /= priors.sum()
    return priors


def _reweight(probabilities: npt.NDArray[np.float64], factors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Multiply the probability of each class, float (image, class), by its factor, and normalize."""
    weighted = probabilities * factors
    return np.asarray(weighted / np.maximum(weighted.sum(axis=1, keepdims=True), 1e-12))


def class_prior_weights(reference: pd.DataFrame, priors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the weight of each row of the reference, float (image,), that gives its true classes these priors."""
    return np.asarray((priors / class_priors(reference))[class_indices(reference, TRUE_EMOTION_COLUMN)])


def class_priors(reference: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return the proportions of the true classes, float (class,)."""
    # With Laplace's pseudo-count, so that a class absent from the reference gets a prior.
    counts = np.bincount(class_indices(reference, TRUE_EMOTION_COLUMN), minlength=len(emotions_of(reference))) + 1
    return np.asarray(counts / counts.sum())
