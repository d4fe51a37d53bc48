"""The p-values of drift: of numbers, of named emotions, of a count, and of a mean.

A reference may be weighted; its rows then count as the fewer that they are worth together.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import chi2_contingency, fisher_exact, ks_2samp, kstwo, norm, pearson3
from scipy.stats.contingency import expected_freq

from emotion_assets.core.classes import EMOTIONS

Weights = npt.NDArray[np.float64]
Values = npt.NDArray[np.float64]

_LEAST_EXPECTED: Final = 5
_UNLUCKY: Final = 0.02
"""The fraction of references of which more is said than they can know: one minus the confidence of their bounds."""


def ks_pvalue(current: pd.Series[float], reference: pd.Series[float], weights: Weights | None = None) -> float:
    """Return the p-value of the test of Kolmogorov and Smirnov, in its limit for many rows."""
    if weights is None:
        return float(ks_2samp(current.to_numpy(), reference.to_numpy(), method="asymp").pvalue)
    ours, order = np.sort(current.to_numpy()), np.argsort(reference.to_numpy())
    theirs, heights = reference.to_numpy()[order], np.append(0, np.cumsum(weights[order]) / weights.sum())
    places = np.concatenate([ours, theirs])
    apart = np.searchsorted(ours, places, "right") / len(ours) - heights[np.searchsorted(theirs, places, "right")]
    num = effective_sample_size(weights)
    return float(kstwo.sf(np.abs(apart).max(), round(len(ours) * num / (len(ours) + num))))


def chi2_pvalue(current: pd.Series[str], reference: pd.Series[str], weights: Weights | None = None) -> float:
    """Return the p-value of a test for equal fractions of the emotions.

    Chi-squared, where at least five of each are expected (Cochran 1954, "Some methods for strengthening the common χ²
    tests"); it would take a single image of what nearly never comes for beyond doubt. Rarer emotions are counted
    together there, and each is compared with all others by Fisher's exact test.
    """
    each = np.ones(len(reference)) if weights is None else weights * effective_sample_size(weights) / weights.sum()
    expected = [each[(reference == emotion).to_numpy()].sum() for emotion in EMOTIONS]
    counts = np.array([[(current == emotion).sum() for emotion in EMOTIONS], expected])
    counts = counts[:, counts.sum(axis=0) > 0]
    if counts.shape[1] < 2:
        return 1.0
    is_rare = expected_freq(counts).min(axis=0) < _LEAST_EXPECTED
    others = counts.sum(axis=1, keepdims=True) - counts
    exact = [fisher_exact(np.rint([counts[:, i], others[:, i]]).astype(int)).pvalue for i in np.flatnonzero(is_rare)]
    if not exact:
        return float(chi2_contingency(counts).pvalue)
    together = np.column_stack([counts[:, ~is_rare], counts[:, is_rare].sum(axis=1)])
    if expected_freq(together).min() < _LEAST_EXPECTED or together.shape[1] < 2:
        together = together[:, :-1]
    smallest = [len(exact) * min(exact)]
    if together.shape[1] >= 2:
        smallest.append(chi2_contingency(together).pvalue)
    return float(min(1.0, len(smallest) * min(smallest)))


def fisher_pvalue(number: int, of: int, number_before: int, of_before: int) -> float:
    """Return the p-value of Fisher's exact test for a larger fraction than before."""
    counts = [[number, of - number], [number_before, of_before - number_before]]
    return float(fisher_exact(counts, alternative="greater").pvalue)


def mean_pvalue(current: Values, reference: Values, weights: Weights, num_tests: float = 1) -> float:
    """Return the p-value of a higher mean than where the reference was drawn from.

    That mean is known within an error, and a reference is used for many windows: it is taken at the upper end of its
    interval, so that an unlucky reference raises no more alarms than another. A few high values in a hundred are
    easily missed by a small reference, so the interval allows for skewness (Johnson 1978, "Modified t tests and
    confidence intervals for asymmetrical populations"). The mean of a window then follows a Pearson distribution of
    type III with the variance and the skewness of the reference; a normal one would be too sure of skewed values.

    Args:
        current: float (image,), in any unit.
        reference: float (image,), in the same unit.
        weights: what each value of the reference counts, float (image,), not negative.
        num_tests: independent means of this reference that are tested; all their bounds hold at once for 98 % of
            references. The p-value itself is not corrected for them.
    """
    mean = np.average(reference, weights=weights)
    away = reference - mean
    variance, third = (float(np.average(away**power, weights=weights)) for power in (2, 3))
    if variance == 0:
        return 1.0
    skewness, num = third / variance**1.5, effective_sample_size(weights)
    bound = norm.isf(_UNLUCKY / num_tests)
    bound += skewness / num**0.5 * (1 + 2 * bound**2) / 6
    highest, error = mean + bound * (variance / num) ** 0.5, (variance / len(current)) ** 0.5
    return float(pearson3.sf((current.mean() - highest) / error, skewness / len(current) ** 0.5))


def num_independent(values: Values) -> float:
    """Return how many independent tests as many correlated ones are worth, 1 to `len(values)` (Galwey 2009).

    Args:
        values: what is tested, float (test, image), for the same images.
    """
    sizes = np.linalg.eigvalsh(np.atleast_2d(np.corrcoef(values))).clip(min=0)
    return float(np.sqrt(sizes).sum() ** 2 / sizes.sum())


def effective_sample_size(weights: Weights) -> float:
    """Return how many rows of equal weight tell as much (Kish 1965, "Survey sampling")."""
    return float(weights.sum() ** 2 / (weights**2).sum())
