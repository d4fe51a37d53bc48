"""Are the answers other only because the mix of emotions is? Then nothing is wrong with the model.

If people merely smile more often, the answers to smiling faces stay what they were. The fractions of the emotions
are estimated from the answers (Saerens, Latinne and Decaestecker 2002, "Adjusting the outputs of a classifier
to new a priori probabilities"), and the reference is weighted to have these fractions: if it then looks like what was
seen, the mix explains the change.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.features import PROBABILITY_COLUMNS
from emotion_assets.steps.reference.reference import TRUE_EMOTION_COLUMN

_NUM_STEPS = 200
_MIN_FRACTION = 1e-4


def estimate_class_priors(current: pd.DataFrame, reference: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return the fraction of each emotion among recent images, float (emotion,), by expectation maximization."""
    probabilities = current[list(PROBABILITY_COLUMNS)].to_numpy(dtype=np.float64)
    before = _fractions(reference[TRUE_EMOTION_COLUMN])
    fractions = before.copy()
    for _ in range(_NUM_STEPS):
        weighted = probabilities * (fractions / before)
        weighted /= np.maximum(weighted.sum(axis=1, keepdims=True), 1e-12)
        fractions = np.maximum(weighted.mean(axis=0), _MIN_FRACTION)
        fractions /= fractions.sum()
    return fractions


def class_prior_weights(reference: pd.DataFrame, fractions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return what each row of the reference counts, float (image,), so that its true emotions have these fractions."""
    before = _fractions(reference[TRUE_EMOTION_COLUMN])
    position = reference[TRUE_EMOTION_COLUMN].map({emotion: index for index, emotion in enumerate(EMOTIONS)}).to_numpy()
    return np.asarray((fractions / before)[position])


def _fractions(emotions: pd.Series[str]) -> npt.NDArray[np.float64]:
    counts = emotions.value_counts().reindex(list(EMOTIONS), fill_value=0).to_numpy(dtype=np.float64)
    # One more of each (Laplace): an emotion that the reference lacks must not become the likeliest.
    return np.asarray((counts + 1) / (counts.sum() + len(EMOTIONS)))
