"""Did a part of the pictures change at great cost, though most did not?

Means and distributions hide a part: three inverted faces in ten cost as much as a blur of all, and move no number
far. So for each change that costs much, a logistic regression learns from the rehearsed faces to tell changed pictures
from unchanged ones. A picture is ranked among other unchanged faces by how changed it looks; what it tells for a part
is the logarithm of how much likelier such a rank is if two pictures in ten changed than if none did. The mean over a
window is held against that of the other faces.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from emotion_assets.steps.drift.significance import num_independent, p_of_higher_mean

DEAR: Final = 0.2
"""A part of the pictures matters only under a change that costs at least so much accuracy."""

_SHARE: Final = 0.2
"""The part that a window is asked for; others are found almost as well."""
_MIN_RANK: Final = 0.01
_MIN_RANK_FACES: Final = 5
"""Ranks nearer to the top, or above so many of the other faces, count as this one: so no few pictures carry a window,
and no few faces say how usual that is."""
_PENALTY: Final = 0.1
"""Inverse strength of the penalty on the regression's weights, as there are few faces for so many of them."""
_MIN_CONTRAST: Final = 0.5
"""In deviations. Pictures under a change that differ less than so from others say nothing of shares."""

_ALMOST_1: Final = 1 - 1e-9

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
    """Others under the change, to see what they tell for it; the same ones where there are none."""


class PartFinder:
    """Knows what unchanged faces tell for each dear change, and so when a window tells too much."""

    def __init__(self, unchanged: Floats, changes: Iterable[DearChange], others: Floats) -> None:
        """Learn the changes.

        Args:
            unchanged: the rehearsed faces as they are, float (picture, number).
            changes: the same faces under each change, and others.
            others: unchanged faces that were not rehearsed. Those that a regression was fitted to tell less for the
                change than any others do, so they cannot say what the faces of a window will.
        """
        known = [_Known(change, unchanged, others) for change in changes]
        self._known = [each for each in known if each.contrast > _MIN_CONTRAST * each.usual.std()]
        self._num_independent = num_independent(np.stack([each.usual for each in self._known])) if self._known else 0

    def find(self, seen: Floats, weights: Floats) -> Part | None:
        """Return the surest part among described pictures, float (picture, number); None without dear changes.

        Args:
            seen: the pictures of a window.
            weights: what each of the other faces counts, float (picture,).
        """
        if not self._known:
            return None
        told = [known.told(seen) for known in self._known]
        p_values = [
            p_of_higher_mean(each, known.usual, weights, self._num_independent)
            for each, known in zip(told, self._known, strict=True)
        ]
        surest = int(np.argmin(p_values))
        known = self._known[surest]
        usual = float(np.average(known.usual, weights=weights))
        share = float(np.clip((told[surest].mean() - usual) / known.contrast, 0, 1))
        # The chance that one of so many independent tests is as sure (Šidák 1967).
        p_value = -np.expm1(self._num_independent * np.log1p(-min(p_values[surest], _ALMOST_1)))
        return Part(known.words, share, share * known.loss, float(p_value))


class _Known:
    """One dear change, and what faces that it left alone tell for it all the same."""

    def __init__(self, change: DearChange, unchanged: Floats, others: Floats) -> None:
        self.words, self.loss = change.words, change.loss
        # With squares and products: a change of the spread, or of how numbers hang together, is one too.
        self._regression = make_pipeline(
            PolynomialFeatures(2, include_bias=False),
            StandardScaler(),
            LogisticRegression(C=_PENALTY, class_weight="balanced", max_iter=1000),
        )
        is_changed = np.repeat([0, 1], [len(unchanged), len(change.described)])
        self._regression.fit(np.vstack([unchanged, change.described]), is_changed)
        self._scores = np.sort(self._regression.decision_function(others))
        # Unchanged faces have ranks uniform in 0..1, changed ones about like a power of that, fitted by its likelihood.
        self._exponent = 1 / max(float(-np.log(self._ranks(change.described)).mean()), 1.0)
        self.usual = self.told(others)
        self.contrast = float(self.told(change.fresh).mean() - self.usual.mean())

    def told(self, described: Floats) -> Floats:
        """Return what each picture tells for a part, float (picture,)."""
        ranks = self._ranks(described)
        told: Floats = np.log1p(_SHARE * (self._exponent * ranks ** (self._exponent - 1) - 1))
        return told

    def _ranks(self, described: Floats) -> Floats:
        """Return the share of other faces that resemble the change at least as much, float (picture,)."""
        scores = self._regression.decision_function(described)
        ranks = 1 - np.searchsorted(self._scores, scores, "left") / len(self._scores)
        return np.asarray(np.maximum(ranks, max(_MIN_RANK, _MIN_RANK_FACES / len(self._scores))))
