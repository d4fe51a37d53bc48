"""Which known corruption do recent images look like, and what does it cost?

A window is described by the means of its logged numbers and of their distances from the reference's center, which
tell a shift from a spread. Each known corruption is a normal distribution of such means; Bayes' rule with equal
priors gives the fraction of belief in each. A slack is added to every variance, because no real change is quite the
corrupted one.

What a change costs is read from what the network believed of each face before: an answer that changed from one with
probability 0.7 to one with 0.2 loses half a right answer on average, if the probabilities are calibrated. Labels of a
few hundred faces would say the same with three times the error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.features import EMOTION_COLUMN, PROBABILITY_COLUMNS
from emotion_assets.core.image_stats import STATISTICS
from emotion_assets.steps.drift.pvalues import Weights
from emotion_assets.steps.drift.subpopulations import (
    HARMFUL_TO_PART,
    Floats,
    HarmfulCorruption,
    Subpopulation,
    SubpopulationDetector,
)
from emotion_assets.steps.reference.corruptions import CORRUPTION_COLUMN, FACE_COLUMN, STRENGTH_COLUMN, UNCHANGED

HARMFUL_LOSS: Final = 0.06
"""A known corruption acts when it costs at least so much: 5 points of accuracy, and one that beliefs exaggerate by."""

_POSITIONS: Final = {emotion: position for position, emotion in enumerate(EMOTIONS)}
# The last probability follows from the others.
_COLUMNS: Final = (*STATISTICS, *PROBABILITY_COLUMNS[:-1])
_SLACK: Final = 0.01
"""Variance of the mismatch, in reference variances."""
_MAX_DISTANCE: Final = 20.0
"""Mean squared deviations from the nearest change; above this nothing corrupted is like it."""
_LIKELY: Final = 0.15
_MIN_FRESH: Final = 25
"""With fewer faces that no regression was fitted to, the fitted ones say what a change looks like."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """The known corruption that recent images look like."""

    changes: tuple[str, ...]
    """In words, the likeliest first; more than one where they cannot be told apart, none if nothing is like it."""
    loss: float
    """Accuracy that such images cost on validation faces, as a fraction; the mean over what they may be."""
    corruption_profile: pd.DataFrame
    """Logged values under the first of `changes` at its likeliest strength, one row a validation face."""

    @property
    def is_corruption(self) -> bool:
        """Whether a known corruption is the likeliest, rather than none of them or no change at all."""
        return bool(self.changes) and self.changes[0] != UNCHANGED

    @property
    def is_harmful(self) -> bool:
        """Whether it is a change that costs enough to act on."""
        return self.is_corruption and self.loss >= HARMFUL_LOSS


class CorruptionProfile:
    """The known corruptions of one model, ready to be compared with any window."""

    def __init__(self, reference: pd.DataFrame, corruptions: pd.DataFrame) -> None:
        """Describe the changes.

        Args:
            reference: validation faces, one row each, with the logged columns; the index is their position in the
                validation split.
            corruption profile: from `steps.training.corruption profile.corrupted`: the same faces in the same order under every change.
        """
        self._center = reference[list(_COLUMNS)].mean().to_numpy(dtype=np.float64)
        self._spread = np.maximum(reference[list(_COLUMNS)].std().to_numpy(dtype=np.float64), 1e-6)
        self._usual = self._described(reference).mean(axis=0)
        groups = dict(list(corruptions.groupby([CORRUPTION_COLUMN, STRENGTH_COLUMN], sort=False)))
        self._changes = [str(change) for change, _ in groups]
        self._tables = list(groups.values())
        values = np.stack([self._described(table) for table in self._tables])
        start = self._changes.index(UNCHANGED)
        self._means = values.mean(axis=1) - values[start].mean(axis=0)
        self._covariances = np.stack([np.cov(rows, rowvar=False) for rows in values])
        self._losses = np.array([_loss(self._tables[start], table) for table in self._tables])
        self._parts = self._part_finder(reference, values, start)

    def _part_finder(self, reference: pd.DataFrame, values: Floats, start: int) -> SubpopulationDetector:
        # Bundles of older code do not say which faces they corrupted with.
        known = self._tables[start].get(FACE_COLUMN, pd.Series(dtype=int)).to_numpy()
        faces = known[: len(reference) // 2]
        self._is_other = ~np.isin(reference.index, faces)
        # Squares of the deviations tell the regression what their sizes would.
        values = values[:, :, : len(_COLUMNS)]
        fitted, fresh = values[:, : len(faces)], values[:, len(faces) :]
        fresh = fresh if fresh.shape[1] >= _MIN_FRESH else fitted
        harmful = np.flatnonzero(self._losses >= HARMFUL_TO_PART).tolist() if len(faces) else []
        return SubpopulationDetector(
            fitted[start],
            [HarmfulCorruption(self._changes[i], float(self._losses[i]), fitted[i], fresh[i]) for i in harmful],
            self._away(reference[self._is_other]),
        )

    def attribution(self, current: pd.DataFrame) -> Attribution:
        """Return what a window of logged values, one row an image, looks like."""
        seen = self._described(current).mean(axis=0) - self._usual
        covariances = self._covariances / len(current) + _SLACK * np.eye(len(seen))
        away = seen - self._means
        distances = (away * np.linalg.solve(covariances, away[:, :, None])[:, :, 0]).sum(axis=1)
        fits = -0.5 * (distances + np.linalg.slogdet(covariances)[1])
        belief = np.exp(fits - fits.max())
        belief /= belief.sum()
        loss = float(belief @ self._losses)
        by_change = pd.Series(belief, index=self._changes).groupby(level=0).sum().sort_values(ascending=False)
        is_first = np.array([change == by_change.index[0] for change in self._changes])
        likeliest = int(np.where(is_first, belief, -1).argmax())
        corruption_profile = self._tables[likeliest]
        if distances[likeliest] / len(seen) > _MAX_DISTANCE:
            return Attribution((), loss, corruption_profile)
        likely = [str(change) for change, fraction in by_change.items() if fraction >= _LIKELY]
        return Attribution(tuple(likely or [str(by_change.index[0])]), loss, corruption_profile)

    def part(self, current: pd.DataFrame, weights: Weights | None = None) -> Subpopulation | None:
        """Return the part of a window that most surely changed at great cost; None if no such change was corrupted.

        Args:
            current: logged values, one row an image, that as a whole do not look like a change.
            weights: what each row of the reference counts, float (image,), where the mix of emotions is another.
        """
        weights = np.ones(len(self._is_other)) if weights is None else weights
        return self._parts.find(self._away(current), weights[self._is_other])

    def _described(self, table: pd.DataFrame) -> Floats:
        """Return float (image, 34): each number's deviation from the center, and its size."""
        away = self._away(table)
        return np.hstack([away, np.minimum(np.abs(away), 4)])

    def _away(self, table: pd.DataFrame) -> Floats:
        """Return float (image, 17): each number's deviation from the center, in spreads."""
        away = (table[list(_COLUMNS)].to_numpy(dtype=np.float64) - self._center) / self._spread
        return np.asarray(np.clip(away, -6, 6))


def _loss(unchanged: pd.DataFrame, changed: pd.DataFrame) -> float:
    """Return the accuracy that a change costs by the network's own calibrated beliefs, as a fraction.

    The best of five uncertain beliefs is a little too high, and so is the loss: by about one point of ten.
    """
    beliefs = unchanged[list(PROBABILITY_COLUMNS)].to_numpy(dtype=np.float64)
    before, after = (table[EMOTION_COLUMN].map(_POSITIONS).to_numpy() for table in (unchanged, changed))
    rows = np.arange(len(beliefs))
    return max(float((beliefs[rows, before] - beliefs[rows, after]).mean()), 0.0)
