"""Estimate the accuracy that a corruption costs, from predictions without and with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from emotion_assets.core.features import EMOTION_COLUMN, probability_columns
from emotion_assets.steps.reference.reference import TRUE_EMOTION_COLUMN, class_indices, emotions_of

Floats = npt.NDArray[np.float64]

_MIN_PROBABILITY: Final = 1e-6


def fit_pooling(clean: pd.DataFrame, corrupted: Iterable[pd.DataFrame]) -> float:
    """Return the weight of a corrupted image's log-probabilities beside those of the clean one, 0..0.5.

    The pooled probabilities predict the true class best, by their log loss over all corruptions.

    Args:
        clean: predictions and true classes of images without a corruption, one row each.
        corrupted: for each corruption the predictions for the first of these images, in the same order.
    """
    tables = list(corrupted)
    before = np.concatenate([_log_probabilities(clean.head(len(table))) for table in tables])
    after = np.concatenate([_log_probabilities(table) for table in tables])
    truth = np.concatenate([class_indices(clean.head(len(table)), TRUE_EMOTION_COLUMN) for table in tables])[:, None]

    def log_loss(weight: float) -> float:
        pooled = log_softmax((1 - weight) * before + weight * after, axis=1)
        return float(-np.take_along_axis(pooled, truth, axis=1).mean())

    return float(minimize_scalar(log_loss, bounds=(0, 0.5), method="bounded").x)


def expected_losses(clean: pd.DataFrame, corrupted: pd.DataFrame, weight: float) -> Floats:
    """Return the expected loss of accuracy of each image by calibrated probabilities, float (image,), -1..1.

    A prediction that changes from a class of probability 0.7 to one of 0.2 loses half a correct prediction on average.
    Labels of a few hundred images would give the same with twice the error. By the probabilities of the clean image
    alone, the loss may be a sixth too high: where the corrupted image speaks for another class, that is some evidence
    for it. So the probabilities are those of both predictions, pooled (Genest and Zidek 1986, "Combining probability
    distributions").

    Both tables have one row for each image; `weight`, by `fit_pooling`, is that of the corrupted one.
    """
    pooled = softmax((1 - weight) * _log_probabilities(clean) + weight * _log_probabilities(corrupted), axis=1)
    before, after = (class_indices(table, EMOTION_COLUMN)[:, None] for table in (clean, corrupted))
    losses = np.take_along_axis(pooled, before, axis=1) - np.take_along_axis(pooled, after, axis=1)
    return np.asarray(losses[:, 0])


def _log_probabilities(table: pd.DataFrame) -> Floats:
    """Return float (image, class)."""
    probabilities = table[probability_columns(emotions_of(table))].to_numpy(dtype=np.float64)
    return np.asarray(np.log(np.maximum(probabilities, _MIN_PROBABILITY)))
