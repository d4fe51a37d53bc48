"""95 % intervals of the scores.

A bootstrap fails where they matter most: if all 16 test images of a class are classified correctly, every resample says
so, and the interval ends where it begins. So fractions of images (accuracy, precision, recall) get Wilson's interval
(1927), and other scores between 0 and 1 the same with an effective sample size (Korn and Graubard 1998, "Confidence
intervals for proportions with small expected number of positive counts").

Chance biases the calibration error upwards, most of all when it is small. Its interval inverts a test: it contains
every true error under which the measured one is not surprising, with gaps between confidence and accuracy spread over
the bins in proportion to their standard errors. benchmarks/interval_coverage.py checks all of them by simulation.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import norm

from emotion_assets.steps.evaluation.scores import (
    NUM_CALIBRATION_BINS,
    LabelledPredictions,
    Scores,
    compute_scores,
    confidence_bins,
)

Interval = tuple[float, float]
Floats = npt.NDArray[np.float64]

_NUM_DRAWS: Final = 1000
_TAIL: Final = 0.025
_Z: Final = float(norm.isf(_TAIL))


def compute_intervals(predictions: LabelledPredictions) -> dict[str, Interval]:
    """Return the 95 % interval of every score.

    Returns:
        (low, high) by name: `accuracy`, `macro_f1`, `log_loss`, `calibration_error`, and `precision_angry`,
        `recall_angry`, `f1_angry` and so on for every class.
    """
    scores = compute_scores(predictions)
    confusion = np.array(scores.confusion)
    hits, true, predicted = np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    intervals = {
        "accuracy": proportion_interval(scores.accuracy, scores.num_images),
        "macro_f1": _macro_f1_interval(scores, confusion),
        "log_loss": _log_loss_interval(predictions, scores),
        "calibration_error": _calibration_interval(predictions),
    }
    for index, emotion in enumerate(predictions.emotions):
        intervals[f"precision_{emotion}"] = proportion_interval(scores.precision[emotion], predicted[index])
        intervals[f"recall_{emotion}"] = proportion_interval(scores.recall[emotion], true[index])
        # F1 is a function of the fraction of hits among the images that have the class or were predicted as it.
        num_either = true[index] + predicted[index] - hits[index]
        low, high = proportion_interval(hits[index] / max(num_either, 1), num_either)
        intervals[f"f1_{emotion}"] = (2 * low / (1 + low), 2 * high / (1 + high))
    return intervals


def proportion_interval(proportion: float, num_units: int, variance: float | None = None) -> Interval:
    """Return Wilson's 95 % interval of a proportion; (0, 1) without any units.

    Args:
        proportion: the estimate, 0..1.
        num_units: independent units, such as images or subjects.
        variance: of the estimate, if it is not the fraction of units; it gives the effective sample size. If it is 0,
            nothing varied, and `num_units` counts.
    """
    if num_units == 0:
        return 0.0, 1.0
    # scipy's takes whole numbers only, and an effective size is none.
    size = min(num_units, proportion * (1 - proportion) / variance) if variance else num_units
    center = (proportion + _Z**2 / (2 * size)) / (1 + _Z**2 / size)
    half = _Z / (1 + _Z**2 / size) * np.sqrt(proportion * (1 - proportion) / size + (_Z / (2 * size)) ** 2)
    return max(float(center - half), 0.0), min(float(center + half), 1.0)


def _macro_f1_interval(scores: Scores, confusion: npt.NDArray[np.int64]) -> Interval:
    """Return the interval with the variance by the delta method, from the derivative by each cell's count."""
    sums = np.maximum(confusion.sum(axis=0) + confusion.sum(axis=1), 1)
    has_images = confusion.sum(axis=1) > 0
    slopes = has_images * 2 * np.diagonal(confusion) / sums**2
    derivative = np.diag(has_images * 2 / sums) - slopes[:, None] - slopes[None, :]
    variance = float((confusion * derivative**2).sum()) / int(has_images.sum()) ** 2
    return proportion_interval(scores.macro_f1, scores.num_images, variance)


def _log_loss_interval(predictions: LabelledPredictions, scores: Scores) -> Interval:
    chosen = np.take_along_axis(predictions.probabilities, predictions.class_indices[:, None], axis=1)
    losses = -np.log(np.maximum(chosen.astype(np.float64), np.finfo(np.float32).tiny))
    half = _Z * float(losses.std()) / np.sqrt(scores.num_images)
    return max(scores.log_loss - half, 0.0), scores.log_loss + half


def _calibration_interval(predictions: LabelledPredictions) -> Interval:
    """Invert a test of the calibration error."""
    confidence = predictions.confidence.astype(np.float64)
    gaps = np.zeros((len(confidence), NUM_CALIBRATION_BINS))
    gaps[np.arange(len(confidence)), confidence_bins(confidence)] = confidence - predictions.is_correct
    mean = gaps.mean(axis=0)
    error = np.sqrt(np.maximum((gaps**2).mean(axis=0) - mean**2, 0) / len(gaps))
    measured = float(np.abs(mean).sum())
    if not error.sum() > 0:
        return measured, measured
    direction = error / error.sum()
    noise = np.random.default_rng(0).normal(size=(_NUM_DRAWS, len(mean))) * error

    def surplus(true: float, quantile: float) -> float:
        """Return a quantile of the error measured under a true one, minus the error that was measured."""
        return float(np.quantile(np.abs(true * direction + noise).sum(axis=1), quantile)) - measured

    # Noise cannot hide an error of this size, so the sign of the surplus changes below it.
    limit = measured + 10 * float(error.sum())
    low, high = (
        0.0 if surplus(0, quantile) >= 0 else float(brentq(surplus, 0, limit, args=(quantile,), xtol=1e-5))
        for quantile in (1 - _TAIL, _TAIL)
    )
    return low, max(high, measured)  # an error that is small by chance
