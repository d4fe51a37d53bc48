"""The p-values of drift: of numbers, of named emotions, and of a count.

A reference may be weighted; its rows then count as the fewer that they are worth together.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import chi2_contingency, fisher_exact, ks_2samp, kstwo

from emotion_assets.core.emotions import EMOTIONS

Weights = npt.NDArray[np.float64]


def p_of_numbers(current: pd.Series[float], reference: pd.Series[float], weights: Weights | None = None) -> float:
    """Return the p-value of the test of Kolmogorov and Smirnov, in its limit for many rows."""
    if weights is None:
        return float(ks_2samp(current.to_numpy(), reference.to_numpy(), method="asymp").pvalue)
    ours, order = np.sort(current.to_numpy()), np.argsort(reference.to_numpy())
    theirs, heights = reference.to_numpy()[order], np.append(0, np.cumsum(weights[order]) / weights.sum())
    places = np.concatenate([ours, theirs])
    apart = np.searchsorted(ours, places, "right") / len(ours) - heights[np.searchsorted(theirs, places, "right")]
    num = worth(weights)
    return float(kstwo.sf(np.abs(apart).max(), round(len(ours) * num / (len(ours) + num))))


def p_of_emotions(current: pd.Series[str], reference: pd.Series[str], weights: Weights | None = None) -> float:
    """Return the p-value of a chi-squared test for equal shares of the emotions."""
    each = np.ones(len(reference)) if weights is None else weights * worth(weights) / weights.sum()
    expected = [each[(reference == emotion).to_numpy()].sum() for emotion in EMOTIONS]
    counts = np.array([[(current == emotion).sum() for emotion in EMOTIONS], expected])
    counts = counts[:, counts.sum(axis=0) > 0]
    if counts.shape[1] < 2:
        return 1.0
    return float(chi2_contingency(counts).pvalue)


def p_of_more(number: int, of: int, number_before: int, of_before: int) -> float:
    """Return the p-value of Fisher's exact test for a larger share than before."""
    counts = [[number, of - number], [number_before, of_before - number_before]]
    return float(fisher_exact(counts, alternative="greater").pvalue)


def worth(weights: Weights) -> float:
    """Return how many rows of equal weight tell as much (Kish 1965, "Survey sampling")."""
    return float(weights.sum() ** 2 / (weights**2).sum())
