"""Did a part of the images change at great cost, though most did not?

Means and distributions hide a part: three inverted faces in ten cost as much as a blur of all, and move no number
far. So for each change that costs much, a logistic regression learns from the corrupted faces to tell changed images
from unchanged ones. An image is ranked among other unchanged faces by how changed it looks; what it tells for a part
is the logarithm of how much likelier such a rank is if two images in ten changed than if none did. The mean over a
window is compared with that of the other faces.
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

from emotion_assets.steps.drift.pvalues import mean_pvalue, num_independent

HARMFUL_TO_PART: Final = 0.2
"""A part of the images matters only under a change that costs at least so much accuracy."""

_FRACTION: Final = 0.2
"""The part that a window is asked for; others are found almost as well."""
_MIN_RANK: Final = 0.01
_MIN_RANK_FACES: Final = 5
"""Ranks nearer to the top, or above so many of the other faces, count as this one: so no few images carry a window,
and no few faces say how usual that is."""
_PENALTY: Final = 0.1
"""Inverse strength of the penalty on the regression's weights, as there are few faces for so many of them."""
_MIN_CONTRAST: Final = 0.5
"""In deviations. Images under a change that differ less than so from others say nothing of shares."""

_ALMOST_1: Final = 1 - 1e-9

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Subpopulation:
    """Some of the images that look like a change which costs much."""

    change: str
    """In words."""
    fraction: float
    """Their estimated fraction, 0..1."""
    loss: float
    """Accuracy that they cost over all images, as a fraction."""
    p_value: float
    """That chance alone brought so many, corrected for the number of changes that were looked for."""


@dataclass(frozen=True, slots=True)
class HarmfulCorruption:
    """A known corruption that costs much."""

    words: str
    loss: float
    described: Floats
    """The corrupted faces under the change, float (image, number)."""
    fresh: Floats
    """Others under the change, to see what they tell for it; the same ones where there are none."""


class SubpopulationDetector:
    """Knows what unchanged faces tell for each dear change, and so when a window tells too much."""

    def __init__(self, unchanged: Floats, changes: Iterable[HarmfulCorruption], others: Floats) -> None:
        """Learn the changes.

        Args:
            unchanged: the corrupted faces as they are, float (image, number).
            changes: the same faces under each change, and others.
            others: unchanged faces that were not corrupted. Those that a regression was fitted to tell less for the
                change than any others do, so they cannot say what the faces of a window will.
        """
        known = [_CorruptionDetector(change, unchanged, others) for change in changes]
        self._known = [each for each in known if each.contrast > _MIN_CONTRAST * each.usual.std()]
        self._num_independent = num_independent(np.stack([each.usual for each in self._known])) if self._known else 0

    def find(self, seen: Floats, weights: Floats) -> Subpopulation | None:
        """Return the surest part among described images, float (image, number); None without dear changes.

        Args:
            seen: the images of a window.
            weights: what each of the other faces counts, float (image,).
        """
        if not self._known:
            return None
        told = [known.told(seen) for known in self._known]
        p_values = [
            mean_pvalue(each, known.usual, weights, self._num_independent)
            for each, known in zip(told, self._known, strict=True)
        ]
        surest = int(np.argmin(p_values))
        known = self._known[surest]
        usual = float(np.average(known.usual, weights=weights))
        fraction = float(np.clip((told[surest].mean() - usual) / known.contrast, 0, 1))
        # The chance that one of so many independent tests is as sure (Šidák 1967).
        p_value = -np.expm1(self._num_independent * np.log1p(-min(p_values[surest], _ALMOST_1)))
        return Subpopulation(known.words, fraction, fraction * known.loss, float(p_value))


class _CorruptionDetector:
    """One dear change, and what faces that it left alone tell for it all the same."""

    def __init__(self, change: HarmfulCorruption, unchanged: Floats, others: Floats) -> None:
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
        """Return what each image tells for a part, float (image,)."""
        ranks = self._ranks(described)
        told: Floats = np.log1p(_FRACTION * (self._exponent * ranks ** (self._exponent - 1) - 1))
        return told

    def _ranks(self, described: Floats) -> Floats:
        """Return the fraction of other faces that resemble the change at least as much, float (image,)."""
        scores = self._regression.decision_function(described)
        ranks = 1 - np.searchsorted(self._scores, scores, "left") / len(self._scores)
        return np.asarray(np.maximum(ranks, max(_MIN_RANK, _MIN_RANK_FACES / len(self._scores))))
