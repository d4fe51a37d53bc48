"""Mixtures of known corruptions that may explain a window, and how well they do.

A window is explained by all images under one corruption between two known strengths, perhaps with some of the images
under a second one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import pandas as pd
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import nnls

from emotion_assets.steps.drift.subpopulations import Floats
from emotion_assets.steps.reference.corruptions import GRADED, UNCHANGED

HARMFUL_LOSS: Final = 0.05
"""Drift is acted on when it costs at least this much accuracy."""
_MISMATCH: Final = 0.05
"""Mismatch of real and simulated changes, in standard deviations of the reference."""
_RELATIVE_MISMATCH: Final = 0.2
"""The same as a fraction of the change."""
_MAX_PART: Final = 0.5
"""Largest fraction of images with a second corruption."""
_LABEL_SHIFT_EVIDENCE: Final = 3.0
"""Log-likelihood that other class priors must gain: a Bayes factor of 20."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Validation images under one corruption, or under two."""

    name: str
    strength: float
    part: str
    """The second corruption, or an empty string."""
    table: pd.DataFrame
    """Features and predictions, one row for each image."""
    means: Floats
    """Means of the features, float (class, feature)."""
    shift: Floats
    """Shift of the mean from that of the same images without a corruption, float (feature,)."""
    covariance: Floats
    """Covariance of the features of an image, float (feature, feature)."""
    error: Floats
    """Covariance of `means`, float (feature, feature)."""
    losses: Floats
    """Expected loss of accuracy, float (class,)."""
    loss: float
    """The same under the class priors of the reference."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A corruption between two strengths, perhaps with another one on some of the images."""

    whole: tuple[Condition, ...]
    """One condition, or those that the images lie between."""
    parts: tuple[Condition, ...] = ()
    """What some of the images are under instead."""

    @property
    def name(self) -> str:
        """The corruption of all images."""
        return self.whole[-1].name

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All conditions, those of the parts last."""
        return self.whole + self.parts

    @property
    def is_strongest(self) -> bool:
        """Whether it is the strongest known form of a corruption that has strengths."""
        return self.name in GRADED and len(self.whole) == 1

    def fit(self, observed: Floats, num_images: int, priors: Floats) -> Fit | None:
        """Fit the fractions of the conditions; None if the part would be the larger one.

        Args:
            observed: means of the features of a window, float (feature,).
            num_images: in the window.
            priors: class priors of the reference, and those estimated for the window, float (2, class). The latter take
                part only if the window is hardly probable without: corruptions distort the estimate.
        """
        covariance = np.mean([each.covariance / num_images + each.error for each in self.whole], axis=0)
        mismatch = _MISMATCH**2 + (_RELATIVE_MISMATCH * self.whole[-1].shift) ** 2
        factor = cholesky(covariance + np.diag(mismatch), lower=True)
        log_determinant = 2 * np.log(np.diag(factor)).sum()
        means = np.stack([prior @ each.means for prior in priors for each in self.conditions])
        whitened = solve_triangular(factor, np.column_stack([means.T, observed]), lower=True)
        # The last row makes the weights sum to one.
        rows = np.vstack([whitened, np.full(len(means) + 1, 1e3)])
        losses = np.array([each.losses for each in self.conditions])

        def fit_with(used: Floats) -> Fit:
            flat, residual = nnls(rows[:, : len(used) * len(self.conditions)], rows[:, -1])
            weights = flat.reshape(len(used), len(self.conditions)).T @ used
            return Fit(
                hypothesis=self,
                weights=weights,
                distance=residual**2 / len(observed),
                log_likelihood=-0.5 * (residual**2 + log_determinant),
                loss=float((weights * losses).sum()),
            )

        usual, shifted = fit_with(priors[:1]), fit_with(priors)
        best = shifted if shifted.log_likelihood > usual.log_likelihood + _LABEL_SHIFT_EVIDENCE else usual
        return None if self.parts and best.weights[len(self.whole) :].sum() > _MAX_PART else best


@dataclass(frozen=True, slots=True)
class Fit:
    """A hypothesis fitted to a window."""

    hypothesis: Hypothesis
    weights: Floats
    """Fractions of the window, float (condition, class)."""
    distance: float
    """Mean squared deviation of the features, in their variances."""
    log_likelihood: float
    loss: float
    """Expected loss of accuracy of the window, as a fraction."""


def make_hypotheses(conditions: Iterable[Condition]) -> Iterator[Hypothesis]:
    """Yield what may explain a window, given all conditions, one of them UNCHANGED, in the order of their strengths."""
    singles: dict[str, list[Condition]] = {}
    combined: dict[tuple[str, str], list[Condition]] = {}
    for each in conditions:
        if each.part:
            combined.setdefault((each.name, each.part), []).append(each)
        else:
            singles.setdefault(each.name, []).append(each)
    (clean,) = singles.pop(UNCHANGED)
    yield Hypothesis((clean,))
    for name, strengths in singles.items():
        for each in strengths:
            if each.loss >= HARMFUL_LOSS / _MAX_PART:  # else no part of it is harmful
                yield Hypothesis((clean,), (each,))
        wholes = [*pairwise([clean, *strengths]), (strengths[-1],)] if name in GRADED else [tuple(strengths)]
        for whole in wholes:
            yield Hypothesis(whole)
            for (of, part), known in combined.items():
                if of == name:
                    yield Hypothesis(whole, tuple(_parts(whole, known, singles.get(part, []))))


def _parts(whole: Iterable[Condition], known: list[Condition], alone: list[Condition]) -> Iterator[Condition]:
    """Yield the combined conditions nearest in strength to those of the whole; without a corruption, the part alone."""
    chosen: dict[int, Condition] = {}
    for each in whole:
        nearest = alone if each.name == UNCHANGED else [min(known, key=lambda part: abs(part.strength - each.strength))]
        chosen |= {id(part): part for part in nearest}
    yield from chosen.values()
