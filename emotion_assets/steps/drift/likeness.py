"""Which rehearsed change do recent pictures look like, all of them or a part, and what does it cost?

A window is described by the means of its logged numbers and of their distances from the reference's centre, which
tell a shift from a spread. Each rehearsed change is a normal distribution of such means; Bayes' rule with equal
priors gives the share of belief in each. A slack is added to every variance, because no real change is quite the
rehearsed one.

Means hide a part: three inverted faces in ten move none of them far. So for each change that costs much, pictures
are counted that resemble it more than all but a few unchanged ones do (a quadratic discriminant), and more of them
than expected are a part that changed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from emotion_assets.core.image_stats import STATISTICS
from emotion_assets.core.logged_values import EMOTION_COLUMN, PROBABILITY_COLUMNS
from emotion_assets.steps.drift.significance import Weights, p_of_more, worth
from emotion_assets.steps.training.reference import TRUTH_COLUMN
from emotion_assets.steps.training.rehearsal import CHANGE_COLUMN, FACE_COLUMN, STRENGTH_COLUMN, UNCHANGED

HARMFUL_LOSS: Final = 0.06
"""A rehearsed change acts when it costs at least so much accuracy: 5 points, and one for the error of the estimate."""

# The last probability follows from the others.
_COLUMNS: Final = (*STATISTICS, *PROBABILITY_COLUMNS[:-1])
_SLACK: Final = 0.01
"""Variance of the mismatch, in reference variances."""
_MAX_DISTANCE: Final = 20.0
"""Mean squared deviations from the nearest change; above this nothing rehearsed is like it."""
_LIKELY: Final = 0.15
_DEAR: Final = 0.2
"""A part of the pictures matters only under a change that costs so much accuracy."""
_ALIKE_PERCENTILE: Final = 95
"""A picture resembles a change when its score exceeds that of so many percent of the reference."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Likeness:
    """The rehearsed change that recent pictures look like."""

    changes: tuple[str, ...]
    """In words, the likeliest first; more than one where they cannot be told apart, none if nothing is like it."""
    loss: float
    """Accuracy that such pictures cost on validation faces, as a fraction; the mean over what they may be."""
    rehearsed: pd.DataFrame
    """Logged values of the single likeliest change, one row a validation face."""

    @property
    def is_a_change(self) -> bool:
        """Whether a rehearsed change is the likeliest, rather than none of them or no change at all."""
        return bool(self.changes) and self.changes[0] != UNCHANGED

    @property
    def is_dear(self) -> bool:
        """Whether it is a change that costs enough to act on."""
        return self.is_a_change and self.loss >= HARMFUL_LOSS


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the pictures that look like a change which costs much."""

    change: str
    """In words."""
    share: float
    """Their estimated share, 0..1."""
    loss: float
    """Accuracy that they cost over all pictures, as a fraction."""
    p_value: float
    """That chance alone brought so many, corrected for the number of changes that were looked for."""


class Rehearsal:
    """The rehearsed changes of one model, ready to be compared with any window."""

    def __init__(self, reference: pd.DataFrame, rehearsal: pd.DataFrame) -> None:
        """Describe the changes.

        Args:
            reference: validation faces, one row each, with the logged columns and their true emotions.
            rehearsal: from `steps.training.rehearsal.rehearsed`: the same faces in the same order under every change.
        """
        self._centre = reference[list(_COLUMNS)].mean().to_numpy(dtype=np.float64)
        self._spread = np.maximum(reference[list(_COLUMNS)].std().to_numpy(dtype=np.float64), 1e-6)
        self._usual = self._described(reference).mean(axis=0)
        groups = dict(list(rehearsal.groupby([CHANGE_COLUMN, STRENGTH_COLUMN], sort=False)))
        self._changes = [str(change) for change, _ in groups]
        self._tables = list(groups.values())
        values = np.stack([self._described(table) for table in self._tables])
        start = self._changes.index(UNCHANGED)
        self._means = values.mean(axis=1) - values[start].mean(axis=0)
        self._covariances = np.stack([np.cov(rows, rowvar=False) for rows in values])
        is_right = np.stack([_is_right(table) for table in self._tables])
        accuracy = float(_is_right(reference).mean())
        self._losses = np.array([_loss(is_right[start], row, accuracy) for row in is_right])
        self._set_limits(reference, values)

    def _set_limits(self, reference: pd.DataFrame, values: Floats) -> None:
        """Describe the changes that cost much, and see how much other faces resemble them.

        Faces that a distribution was fitted to seem likelier than others do, so the reference is parted.
        """
        faces = self._tables[0].get(FACE_COLUMN, pd.Series(dtype=int)).to_numpy()[: len(reference) // 2]
        is_other = ~np.isin(reference.index, faces)
        self._others, self._is_other = self._described(reference[is_other]), is_other
        dear = np.flatnonzero(self._losses >= _DEAR).tolist() if len(faces) else []
        self._normal = _Normal(values[self._changes.index(UNCHANGED), : len(faces)]) if dear else None
        self._dear = {number: _Normal(values[number, : len(faces)]) for number in dear}
        self._limits = {
            number: float(np.percentile(self._scores(self._others, number), _ALIKE_PERCENTILE)) for number in dear
        }

    def likeness(self, current: pd.DataFrame) -> Likeness:
        """Return what a window of logged values, one row a picture, looks like."""
        seen = self._described(current).mean(axis=0) - self._usual
        covariances = self._covariances / len(current) + _SLACK * np.eye(len(seen))
        away = seen - self._means
        distances = (away * np.linalg.solve(covariances, away[:, :, None])[:, :, 0]).sum(axis=1)
        fits = -0.5 * (distances + np.linalg.slogdet(covariances)[1])
        belief = np.exp(fits - fits.max())
        belief /= belief.sum()
        loss = float(belief @ self._losses)
        likeliest = int(belief.argmax())
        rehearsed = self._tables[likeliest]
        if distances[likeliest] / len(seen) > _MAX_DISTANCE:
            return Likeness((), loss, rehearsed)
        by_change = pd.Series(belief, index=self._changes).groupby(level=0).sum().sort_values(ascending=False)
        likely = [str(change) for change, share in by_change.items() if share >= _LIKELY]
        return Likeness(tuple(likely or [str(by_change.index[0])]), loss, rehearsed)

    def part(self, current: pd.DataFrame, weights: Weights | None = None) -> Part | None:
        """Return the part of a window that most surely changed at great cost; None if no such change was rehearsed.

        Args:
            current: logged values, one row a picture, that as a whole do not look like a change.
            weights: what each row of the reference counts, float (picture,), where the mix of emotions is another.
        """
        counts = np.ones(len(self._others)) if weights is None else weights[self._is_other]
        num_expected = worth(counts)
        seen = self._described(current)
        found = []
        for number, limit in self._limits.items():
            num_seen = int((self._scores(seen, number) > limit).sum())
            usual = float(counts[self._scores(self._others, number) > limit].sum() / counts.sum())
            p_value = p_of_more(num_seen, len(seen), round(usual * num_expected), round(num_expected))
            if_all = float((self._scores(self._described(self._tables[number]), number) > limit).mean())
            share = float(np.clip((num_seen / len(seen) - usual) / max(if_all - usual, 0.05), 0, 1))
            found.append(Part(self._changes[number], share, share * float(self._losses[number]), p_value))
        if not found:
            return None
        surest = min(found, key=lambda part: part.p_value)
        return replace(surest, p_value=min(1.0, surest.p_value * len(found)))

    def _scores(self, described: Floats, number: int) -> Floats:
        """Return how much more like a change than unchanged each picture is, float (picture,): a log density ratio."""
        assert self._normal
        return self._dear[number].log_densities(described) - self._normal.log_densities(described)

    def _described(self, table: pd.DataFrame) -> Floats:
        """Return float (picture, 32): each number's deviation from the centre in spreads, and its size."""
        away = (table[list(_COLUMNS)].to_numpy(dtype=np.float64) - self._centre) / self._spread
        return np.hstack([np.clip(away, -6, 6), np.minimum(np.abs(away), 4)])


class _Normal:
    """A normal distribution of described pictures."""

    def __init__(self, described: Floats) -> None:
        self._mean = described.mean(axis=0)
        covariance = np.cov(described, rowvar=False) + _SLACK * np.eye(described.shape[1])
        self._precision = np.linalg.inv(covariance)
        self._log_volume = float(np.linalg.slogdet(covariance)[1])

    def log_densities(self, described: Floats) -> Floats:
        """Return the log density at each picture, float (picture,), but for a constant."""
        away = described - self._mean
        distances: Floats = np.einsum("ij,jk,ik->i", away, self._precision, away)
        return -0.5 * (distances + self._log_volume)


def _is_right(table: pd.DataFrame) -> npt.NDArray[np.bool_]:
    return np.asarray(table[EMOTION_COLUMN] == table[TRUTH_COLUMN])


def _loss(was_right: npt.NDArray[np.bool_], is_right: npt.NDArray[np.bool_], accuracy: float) -> float:
    """Return what a change costs, with right and wrong answers weighted as among all validation faces."""
    lost = 1 - is_right[was_right].mean() if was_right.any() else 0.0
    gained = is_right[~was_right].mean() if not was_right.all() else 0.0
    return max(float(accuracy * lost - (1 - accuracy) * gained), 0.0)
