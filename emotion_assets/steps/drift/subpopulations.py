"""Detect a subpopulation of corrupted images in a window that looks unchanged as a whole.

Means and distributions hide a subpopulation: three inverted images in ten cost as much accuracy as a blur of all, and
move no statistic far. So for each corruption that costs much, a logistic regression learns to tell corrupted from clean
validation images. A window's image is ranked by its score among other clean images; its log-likelihood ratio compares
"two images in ten are corrupted" with "none is". The mean over the window is tested against that of clean images.
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

from emotion_assets.steps.drift.pvalues import mean_pvalue, num_independent_tests

MIN_LOSS: Final = 0.2
"""A subpopulation matters only under a corruption that costs at least this much accuracy."""

_ASSUMED_FRACTION: Final = 0.2
"""The fraction that the likelihood ratio tests for; other fractions are detected almost as well."""
_MIN_RANK: Final = 0.01
_MIN_RANK_IMAGES: Final = 5
"""Ranks below `_MIN_RANK`, or below this many clean images, are clipped, so that a few images cannot dominate."""
_REGULARIZATION: Final = 0.1
"""Inverse penalty of the regression: there are few images for its many weights."""
_MIN_SEPARATION: Final = 0.5
"""In standard deviations. Corruptions that separate less from clean images say nothing about fractions."""
_ALMOST_1: Final = 1 - 1e-9

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Subpopulation:
    """Images of a window that look corrupted while most do not."""

    corruption: str
    fraction: float
    """Estimated fraction of the window, 0..1."""
    loss: float
    """Accuracy lost over the whole window, as a fraction."""
    p_value: float
    """Corrected for the number of corruptions tested."""


class SubpopulationDetector:
    """Detectors of all harmful corruptions, fitted once for a model."""

    def __init__(self, detectors: Iterable[CorruptionDetector]) -> None:
        """Use the detectors, with the same clean images, of corruptions that differ enough from those."""
        self._detectors = [each for each in detectors if each.separation > _MIN_SEPARATION * each.clean_ratios.std()]
        ratios = [each.clean_ratios for each in self._detectors]
        self._num_tests = num_independent_tests(np.stack(ratios)) if ratios else 0

    def detect(self, window: Floats, weights: Floats) -> Subpopulation | None:
        """Return the most significant subpopulation of a window; None if no corruption is harmful.

        The window is float (image, feature); `weights`, float (image,), are of the held-out clean images.
        """
        if not self._detectors:
            return None
        ratios = [each.log_likelihood_ratios(window) for each in self._detectors]
        p_values = [
            mean_pvalue(ratio, each.clean_ratios, weights, self._num_tests)
            for ratio, each in zip(ratios, self._detectors, strict=True)
        ]
        best = int(np.argmin(p_values))
        detector = self._detectors[best]
        excess = ratios[best].mean() - float(np.average(detector.clean_ratios, weights=weights))
        fraction = float(np.clip(excess / detector.separation, 0, 1))
        # Šidák's correction (1967) for the smallest of so many independent p-values.
        p_value = -np.expm1(self._num_tests * np.log1p(-min(p_values[best], _ALMOST_1)))
        return Subpopulation(detector.name, fraction, fraction * detector.loss, float(p_value))


class CorruptionDetector:
    """The regression of one corruption that costs much accuracy, and the log-likelihood ratios of clean images."""

    def __init__(
        self, name: str, loss: float, clean: Floats, clean_held_out: Floats, corrupted: Floats, held_out: Floats
    ) -> None:
        """Fit the regression to images without and with the corruption, each float (image, feature).

        Args:
            name: of the corruption.
            loss: of accuracy under it.
            clean: images without it.
            clean_held_out: others, not fitted to: fitted ones score too low to say how images of a window score.
            corrupted: the images of `clean` under it.
            held_out: others under it; the same ones where there are too few.
        """
        self.name, self.loss = name, loss
        # Squares and products detect changes of spread and of correlation as well.
        self._regression = make_pipeline(
            PolynomialFeatures(2, include_bias=False),
            StandardScaler(),
            LogisticRegression(C=_REGULARIZATION, class_weight="balanced", max_iter=1000),
        )
        is_corrupted = np.repeat([0, 1], [len(clean), len(corrupted)])
        self._regression.fit(np.vstack([clean, corrupted]), is_corrupted)
        self._scores = np.sort(self._regression.decision_function(clean_held_out))
        # Ranks of clean images are uniform in 0..1; those of corrupted ones follow about a power, fitted by likelihood.
        self._exponent = 1 / max(float(-np.log(self._ranks(corrupted)).mean()), 1.0)
        self.clean_ratios = self.log_likelihood_ratios(clean_held_out)
        self.separation = float(self.log_likelihood_ratios(held_out).mean() - self.clean_ratios.mean())

    def log_likelihood_ratios(self, features: Floats) -> Floats:
        """Return the log-likelihood ratio of each image, float (image,)."""
        density = self._exponent * self._ranks(features) ** (self._exponent - 1)
        ratios: Floats = np.log1p(_ASSUMED_FRACTION * (density - 1))
        return ratios

    def _ranks(self, features: Floats) -> Floats:
        """Return the fraction of clean images that score at least as high, float (image,)."""
        scores = self._regression.decision_function(features)
        ranks = 1 - np.searchsorted(self._scores, scores, "left") / len(self._scores)
        return np.asarray(np.maximum(ranks, max(_MIN_RANK, _MIN_RANK_IMAGES / len(self._scores))))
