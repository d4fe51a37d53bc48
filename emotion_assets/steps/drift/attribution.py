"""Attribute drift to the nearest known corruption, and estimate what it costs.

A window is described by the means of its features and of their distances from the center of the reference, which tell a
shift from a change of spread. Each known corruption is a normal distribution of such means; Bayes' rule with equal
priors gives its posterior. A variance is added to each, because no real change equals the simulated one.

The cost of a corruption comes from the calibrated probabilities of the clean images: a prediction that changes from a
class of probability 0.7 to one of 0.2 loses half a correct prediction on average. Labels of a few hundred images would
give the same with three times the error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from emotion_assets.core.features import EMOTION_COLUMN, probability_columns
from emotion_assets.core.image_stats import STATISTICS
from emotion_assets.steps.drift.pvalues import Weights
from emotion_assets.steps.drift.subpopulations import (
    MIN_LOSS,
    Floats,
    HarmfulCorruption,
    Subpopulation,
    SubpopulationDetector,
)
from emotion_assets.steps.reference.corruptions import CORRUPTION_COLUMN, INDEX_COLUMN, STRENGTH_COLUMN, UNCHANGED
from emotion_assets.steps.reference.reference import emotions_of

HARMFUL_LOSS: Final = 0.06
"""A known corruption is acted on when it costs at least this much accuracy: 5 points, and one by which probabilities
overstate the cost."""

_MISMATCH_VARIANCE: Final = 0.01
"""Of real changes around simulated ones, in reference variances."""
_MAX_DISTANCE: Final = 20.0
"""Mean squared deviations from the nearest corruption; beyond this, no known corruption is near."""
_MIN_POSTERIOR: Final = 0.15
_MIN_HELD_OUT: Final = 25
"""With fewer held-out images, the fitted ones stand in for them."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """The known corruption nearest to a window."""

    corruptions: tuple[str, ...]
    """The most probable first; several where they cannot be told apart, none if nothing is near."""
    loss: float
    """Accuracy that such images cost on validation images, as a fraction; the mean over the posterior."""
    corrupted: pd.DataFrame
    """Features and predictions under the first of `corruptions` at its most probable strength, one row per image."""

    @property
    def is_corruption(self) -> bool:
        """Whether a known corruption is more probable than none."""
        return bool(self.corruptions) and self.corruptions[0] != UNCHANGED

    @property
    def is_harmful(self) -> bool:
        """Whether it is a corruption that costs enough to act on."""
        return self.is_corruption and self.loss >= HARMFUL_LOSS


class CorruptionProfile:
    """The known corruptions of one model, prepared for comparison with windows."""

    def __init__(self, reference: pd.DataFrame, profile: pd.DataFrame) -> None:
        """Prepare the corruptions.

        Args:
            reference: validation images, one row each, by their index in the validation split.
            profile: the table of `steps.reference.corruptions.corruption_profile`: some of these images, in the same
                order under each corruption.
        """
        # The last probability follows from the others.
        self._columns = [*STATISTICS, *probability_columns(emotions_of(reference))[:-1]]
        self._center = reference[self._columns].mean().to_numpy(dtype=np.float64)
        self._spread = np.maximum(reference[self._columns].std().to_numpy(dtype=np.float64), 1e-6)
        self._clean_mean = self._describe(reference).mean(axis=0)
        groups = dict(list(profile.groupby([CORRUPTION_COLUMN, STRENGTH_COLUMN], sort=False)))
        self._names = [str(name) for name, _ in groups]
        self._tables = list(groups.values())
        values = np.stack([self._describe(table) for table in self._tables])
        clean = self._names.index(UNCHANGED)
        self._means = values.mean(axis=1) - values[clean].mean(axis=0)
        self._covariances = np.stack([np.cov(rows, rowvar=False) for rows in values])
        self._losses = _expected_losses(self._tables[clean], self._tables)
        self._fit_detector(reference, values[:, :, : len(self._columns)], clean)

    def _fit_detector(self, reference: pd.DataFrame, values: Floats, clean: int) -> None:
        """Fit the subpopulation detector on half of the reference at most; the rest is held out."""
        indices = self._tables[clean][INDEX_COLUMN].to_numpy()[: len(reference) // 2]
        self._is_held_out = ~np.isin(reference.index, indices)
        fitted, held_out = values[:, : len(indices)], values[:, len(indices) :]
        held_out = held_out if held_out.shape[1] >= _MIN_HELD_OUT else fitted
        harmful = [
            HarmfulCorruption(self._names[i], float(self._losses[i]), fitted[i], held_out[i])
            for i in np.flatnonzero(self._losses >= MIN_LOSS).tolist()
        ]
        others = self._standardize(reference[self._is_held_out])
        self._detector = SubpopulationDetector(fitted[clean], harmful, others)

    def attribute(self, current: pd.DataFrame) -> Attribution:
        """Return the known corruption nearest to a window of features and predictions, one row per image."""
        observed = self._describe(current).mean(axis=0) - self._clean_mean
        covariances = self._covariances / len(current) + _MISMATCH_VARIANCE * np.eye(len(observed))
        deviations = observed - self._means
        distances = (deviations * np.linalg.solve(covariances, deviations[:, :, None])[:, :, 0]).sum(axis=1)
        log_likelihoods = -0.5 * (distances + np.linalg.slogdet(covariances)[1])
        posterior = np.exp(log_likelihoods - log_likelihoods.max())
        posterior /= posterior.sum()
        loss = float(posterior @ self._losses)
        by_name = pd.Series(posterior, index=self._names).groupby(level=0).sum().sort_values(ascending=False)
        is_first = np.array([name == by_name.index[0] for name in self._names])
        nearest = int(np.where(is_first, posterior, -1).argmax())
        corrupted = self._tables[nearest]
        if distances[nearest] / len(observed) > _MAX_DISTANCE:
            return Attribution((), loss, corrupted)
        probable = [str(name) for name, value in by_name.items() if value >= _MIN_POSTERIOR]
        return Attribution(tuple(probable or [str(by_name.index[0])]), loss, corrupted)

    def detect_subpopulation(self, current: pd.DataFrame, weights: Weights | None = None) -> Subpopulation | None:
        """Return the most significant corrupted subpopulation of a window that looks unchanged as a whole.

        Args:
            current: features and predictions, one row per image.
            weights: of the rows of the reference, float (image,), under other class priors.
        """
        weights = np.ones(len(self._is_held_out)) if weights is None else weights
        return self._detector.detect(self._standardize(current), weights[self._is_held_out])

    def _describe(self, table: pd.DataFrame) -> Floats:
        """Return float (image, feature): the standardized features and their absolute values."""
        standardized = self._standardize(table)
        return np.hstack([standardized, np.minimum(np.abs(standardized), 4)])

    def _standardize(self, table: pd.DataFrame) -> Floats:
        """Return float (image, column), in standard deviations of the reference."""
        deviations = (table[self._columns].to_numpy(dtype=np.float64) - self._center) / self._spread
        return np.asarray(np.clip(deviations, -6, 6))


def _expected_losses(clean: pd.DataFrame, corrupted: Sequence[pd.DataFrame]) -> Floats:
    """Return the expected accuracy loss of each corruption by the calibrated probabilities, float (corruption,), 0..1.

    The largest of several uncertain probabilities is biased upwards, and so is the loss: by about one point in ten.
    """
    emotions = emotions_of(clean)
    class_index = {emotion: index for index, emotion in enumerate(emotions)}
    probabilities = clean[probability_columns(emotions)].to_numpy(dtype=np.float64)
    rows = np.arange(len(probabilities))

    def of_predicted(table: pd.DataFrame) -> Floats:
        return np.asarray(probabilities[rows, table[EMOTION_COLUMN].map(class_index).to_numpy()])

    before = of_predicted(clean)
    return np.array([max(float((before - of_predicted(table)).mean()), 0.0) for table in corrupted])
