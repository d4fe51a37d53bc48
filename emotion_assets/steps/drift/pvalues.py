"""p-values of the drift tests. A weighted reference counts as its effective sample size."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import chi2_contingency, fisher_exact, ks_2samp, kstwo, norm, pearson3
from scipy.stats.contingency import expected_freq

Weights = npt.NDArray[np.float64]
Values = npt.NDArray[np.float64]

_MIN_EXPECTED: Final = 5
_BOUND_ERROR: Final = 0.02
"""One minus the confidence of the upper bound on the mean of the reference."""


def ks_pvalue(current: pd.Series[float], reference: pd.Series[float], weights: Weights | None = None) -> float:
    """Return the p-value of the two-sample Kolmogorov-Smirnov test, by its asymptotic distribution."""
    if weights is None:
        return float(ks_2samp(current.to_numpy(), reference.to_numpy(), method="asymp").pvalue)
    ours, order = np.sort(current.to_numpy()), np.argsort(reference.to_numpy())
    theirs, cdf = reference.to_numpy()[order], np.append(0, np.cumsum(weights[order]) / weights.sum())
    points = np.concatenate([ours, theirs])
    gaps = np.searchsorted(ours, points, "right") / len(ours) - cdf[np.searchsorted(theirs, points, "right")]
    size = effective_sample_size(weights)
    return float(kstwo.sf(np.abs(gaps).max(), round(len(ours) * size / (len(ours) + size))))


def distance(current: pd.Series[Any], reference: pd.Series[Any]) -> float:
    """Return the Kolmogorov-Smirnov distance of numbers, or the total variation of class frequencies, 0..1."""
    if pd.api.types.is_numeric_dtype(reference):
        return float(ks_2samp(current.to_numpy(), reference.to_numpy(), method="asymp").statistic)
    differences = current.value_counts(normalize=True).sub(reference.value_counts(normalize=True), fill_value=0)
    return float(differences.abs().sum()) / 2


def chi2_pvalue(current: pd.Series[str], reference: pd.Series[str], weights: Weights | None = None) -> float:
    """Return the p-value of a test for equal class frequencies.

    Chi-squared where at least five of each class are expected (Cochran 1954, "Some methods for strengthening the common
    χ² tests"). Rarer classes are pooled, and each is tested alone by Fisher's exact test: chi-squared would call a
    single image of a rare class significant.
    """
    if weights is None:
        weights = np.ones(len(reference))
    row_weights = weights * effective_sample_size(weights) / weights.sum()
    emotions = sorted({*current, *reference})
    expected = [row_weights[(reference == emotion).to_numpy()].sum() for emotion in emotions]
    counts = np.array([[(current == emotion).sum() for emotion in emotions], expected])
    counts = counts[:, counts.sum(axis=0) > 0]
    if counts.shape[1] < 2:
        return 1.0
    is_rare = expected_freq(counts).min(axis=0) < _MIN_EXPECTED
    others = counts.sum(axis=1, keepdims=True) - counts
    exact = [fisher_exact(np.rint([counts[:, i], others[:, i]]).astype(int)).pvalue for i in np.flatnonzero(is_rare)]
    if not exact:
        return float(chi2_contingency(counts).pvalue)
    pooled = np.column_stack([counts[:, ~is_rare], counts[:, is_rare].sum(axis=1)])
    if expected_freq(pooled).min() < _MIN_EXPECTED or pooled.shape[1] < 2:
        pooled = pooled[:, :-1]
    smallest = [len(exact) * min(exact)]
    if pooled.shape[1] >= 2 and pooled.sum(axis=1).all():
        smallest.append(chi2_contingency(pooled).pvalue)
    return float(min(1.0, len(smallest) * min(smallest)))


def fisher_pvalue(count: int, size: int, reference_count: int, reference_size: int) -> float:
    """Return the p-value of Fisher's exact test for a larger proportion than in the reference."""
    table = [[count, size - count], [reference_count, reference_size - reference_count]]
    return float(fisher_exact(table, alternative="greater").pvalue)


def mean_pvalue(current: Values, reference: Values, weights: Weights, num_tests: float = 1) -> float:
    """Return the p-value of a higher mean than that of the population of the reference.

    The population mean is taken at its upper confidence bound, because one reference serves many windows and an unlucky
    one must not raise more alarms than another. The bound allows for skewness (Johnson 1978, "Modified t tests and
    confidence intervals for asymmetrical populations"); the mean of a window follows a Pearson type III distribution
    with the variance and skewness of the reference.

    Args:
        current: float (image,), in any unit.
        reference: float (image,), in the same unit.
        weights: of the rows of the reference, float (image,), not negative.
        num_tests: independent means of this reference that are tested; their bounds hold at once for 98 % of
            references. The p-value itself is not corrected for them.
    """
    mean = np.average(reference, weights=weights)
    deviations = reference - mean
    variance, third = (float(np.average(deviations**power, weights=weights)) for power in (2, 3))
    if variance == 0:
        return 1.0
    skewness, size = third / variance**1.5, effective_sample_size(weights)
    bound = norm.isf(_BOUND_ERROR / num_tests)
    bound += skewness / size**0.5 * (1 + 2 * bound**2) / 6
    highest, error = mean + bound * (variance / size) ** 0.5, (variance / len(current)) ** 0.5
    return float(pearson3.sf((current.mean() - highest) / error, skewness / len(current) ** 0.5))


def num_independent_tests(values: Values) -> float:
    """Return the effective number of correlated tests, 1 to `len(values)` (Galwey 2009).

    Args:
        values: the tested variables, float (test, image), of the same images.
    """
    eigenvalues = np.linalg.eigvalsh(np.atleast_2d(np.corrcoef(values))).clip(min=0)
    return float(np.sqrt(eigenvalues).sum() ** 2 / eigenvalues.sum())


def effective_sample_size(weights: Weights) -> float:
    """Return how many rows of equal weight carry as much information (Kish 1965, "Survey sampling")."""
    return float(weights.sum() ** 2 / (weights**2).sum())
