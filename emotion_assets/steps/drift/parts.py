"""Did a part of the pictures change at great cost, though most did not?

Means and distributions hide a part: three inverted faces in ten cost as much as a blur of all, and move no number
far. So for each change that costs much, pictures are counted that resemble it more than all but a few unchanged ones
do (a quadratic discriminant: the ratio of two normal densities), and more of them than expected are a part.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from emotion_assets.steps.drift.significance import p_of_more, worth

DEAR: Final = 0.2
"""A part of the pictures matters only under a change that costs at least so much accuracy."""

_ALIKE_PERCENTILE: Final = 95
"""A picture resembles a change when its score exceeds that of so many percent of other faces."""
_SLACK: Final = 0.01
_MIN_CONTRAST: Final = 0.2
"""A change under which fewer additional pictures resemble it says nothing of shares; it is not looked for."""

Floats = npt.NDArray[np.float64]


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


@dataclass(frozen=True, slots=True)
class DearChange:
    """A rehearsed change that costs much."""

    words: str
    loss: float
    described: Floats
    """The rehearsed faces under the change, float (picture, number)."""
    fresh: Floats
    """Others under the change, to see how many of them resemble it; the same ones where there are none."""


class PartFinder:
    """Knows how much unchanged faces resemble each dear change, and so when too many do."""

    def __init__(self, unchanged: Floats, changes: Iterable[DearChange], others: Floats) -> None:
        """Describe the changes.

        Args:
            unchanged: the rehearsed faces as they are, float (picture, number).
            changes: the same faces under each change, and others.
            others: unchanged faces that were not rehearsed. Those that a density was fitted to resemble it more than
                any others do, so they cannot say how many faces of a window will.
        """
        known = [_Known(change, _Normal(unchanged), others) for change in changes]
        self._known = [each for each in known if each.contrast >= _MIN_CONTRAST]

    def find(self, seen: Floats, weights: Floats) -> Part | None:
        """Return the surest part among described pictures, float (picture, number); None without dear changes.

        Args:
            seen: the pictures of a window.
            weights: what each of the other faces counts, float (picture,).
        """
        found = [known.part(seen, weights) for known in self._known]
        if not found:
            return None
        surest = min(found, key=lambda part: part.p_value)
        return replace(surest, p_value=min(1.0, surest.p_value * len(found)))


class _Known:
    """One dear change, and how many of those that it left alone resemble it all the same."""

    def __init__(self, change: DearChange, unchanged: _Normal, others: Floats) -> None:
        self._change, self._unchanged, self._changed = change, unchanged, _Normal(change.described)
        scores = self._scores(others)
        self._limit = float(np.percentile(scores, _ALIKE_PERCENTILE))
        self._is_alike = scores > self._limit
        self.contrast = float((self._scores(change.fresh) > self._limit).mean() - self._is_alike.mean())

    def part(self, seen: Floats, weights: Floats) -> Part:
        num_alike = int((self._scores(seen) > self._limit).sum())
        usual, num_others = float(weights[self._is_alike].sum() / weights.sum()), worth(weights)
        p_value = p_of_more(num_alike, len(seen), round(usual * num_others), round(num_others))
        share = float(np.clip((num_alike / len(seen) - usual) / self.contrast, 0, 1))
        return Part(self._change.words, share, share * self._change.loss, p_value)

    def _scores(self, described: Floats) -> Floats:
        """Return how much more like the change than unchanged each picture is, float (picture,)."""
        return self._changed.log_densities(described) - self._unchanged.log_densities(described)


class _Normal:
    """A normal distribution of described pictures."""

    def __init__(self, described: Floats) -> None:
        self._mean = described.mean(axis=0)
        # Numbers that hardly vary, or few faces, must not make anything infinitely unlikely.
        covariance = np.cov(described, rowvar=False) + _SLACK * np.eye(described.shape[1])
        self._precision = np.linalg.inv(covariance)
        self._log_volume = float(np.linalg.slogdet(covariance)[1])

    def log_densities(self, described: Floats) -> Floats:
        """Return the log density at each picture, float (picture,), but for a constant."""
        away = described - self._mean
        distances: Floats = np.einsum("ij,jk,ik->i", away, self._precision, away)
        return -0.5 * (distances + self._log_volume)
