"""Are the answers other only because the mix of emotions is? Then nothing is wrong with the model.

If people merely smile more often, the answers to smiling faces stay what they were. The shares of the emotions
are estimated from the answers (Saerens, Latinne and Decaestecker 2002, "Adjusting the outputs of a classifier
to new a priori probabilities"), and the reference is weighted to have these shares: if it then looks like what was
seen, the mix explains the change.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from emotion_assets.core.emotions import EMOTIONS
from emotion_assets.core.logged_values import PROBABILITY_COLUMNS
from emotion_assets.steps.training.reference import TRUTH_COLUMN

_NUM_STEPS = 200
_MIN_SHARE = 1e-4


def estimated_shares(current: pd.DataFrame, reference: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return the share of each emotion among recent pictures, float (emotion,), by expectation maximisation."""
    probabilities = current[list(PROBABILITY_COLUMNS)].to_numpy(dtype=np.float64)
    before = _shares(reference[TRUTH_COLUMN])
    shares = before.copy()
    for _ in range(_NUM_STEPS):
        weighted = probabilities * (shares / before)
        weighted /= np.maximum(weighted.sum(axis=1, keepdims=True), 1e-12)
        shares = np.maximum(weighted.mean(axis=0), _MIN_SHARE)
        shares /= shares.sum()
    return shares


def weights_of(reference: pd.DataFrame, shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return what each row of the reference counts, float (picture,), so that its true emotions have these shares."""
    before = _shares(reference[TRUTH_COLUMN])
    position = reference[TRUTH_COLUMN].map({emotion: index for index, emotion in enumerate(EMOTIONS)}).to_numpy()
    return np.asarray((shares / before)[position])


def _shares(emotions: pd.Series[str]) -> npt.NDArray[np.float64]:
    counts = emotions.value_counts().reindex(list(EMOTIONS), fill_value=0).to_numpy(dtype=np.float64)
    # One more of each (Laplace): an emotion that the reference lacks must not become the likeliest.
    return np.asarray((counts + 1) / (counts.sum() + len(EMOTIONS)))
