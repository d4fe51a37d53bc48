"""95 % intervals of the scores by bootstrap over the test images.

Every score is a function of a few sums over images, so one matrix product gives the sums of all resamples. The
interval is between percentiles (Efron and Tibshirani 1993, "An introduction to the bootstrap").

The calibration error needs another method: chance alone biases it upwards, most of all when it is small, and
percentiles then miss the true value. Its interval inverts a test: it contains every true error under which the
measured one is not surprising, with gaps between confidence and accuracy spread over the bins in proportion to their
standard errors. benchmarks/interval_coverage.py checks the coverage of both by simulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from emotion_assets.steps.evaluation.scores import NUM_CALIBRATION_BINS, LabelledPredictions, confidence_bins

Interval = tuple[float, float]
Floats = npt.NDArray[np.float64]

NUM_RESAMPLES: Final = 1000
_TAIL_PERCENT: Final = 2.5


def compute_intervals(
    predictions: LabelledPredictions, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """Return the 95 % interval of every score.

    Returns:
        (low, high) by name: `accuracy`, `macro_f1`, `log_loss`, `calibration_error`, and `precision_angry`,
        `recall_angry`, `f1_angry` and so on for every class.
    """
    terms = image_terms(predictions)
    num_images = len(terms)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(num_images, np.full(num_images, 1 / num_images), num_resamples).astype(np.float64)
    intervals = {}
    for name, values in scores_from_sums(weights @ terms, predictions.emotions).items():
        intervals[name] = percentile_interval(values)
    intervals["calibration_error"] = _calibration_interval(terms[:, -NUM_CALIBRATION_BINS:], num_resamples, rng)
    return intervals


def percentile_interval(values: Floats) -> Interval:
    """Return the 95 % interval of a score from its resamples, float (resample,)."""
    low, high = np.percentile(values, [_TAIL_PERCENT, 100 - _TAIL_PERCENT])
    return float(low), float(high)


def _calibration_interval(gaps: Floats, num_resamples: int, rng: np.random.Generator) -> Interval:
    """Invert a test of the calibration error; `gaps` (image, bin) is confidence minus correctness, 0 elsewhere."""
    mean = gaps.mean(axis=0)
    error = np.sqrt(np.maximum((gaps**2).mean(axis=0) - mean**2, 0) / len(gaps))
    measured = float(np.abs(mean).sum())
    if not error.sum() > 0:
        return measured, measured
    direction = error / error.sum()
    noise = rng.normal(size=(num_resamples, len(mean))) * error

    def surplus(true: float, percentile: float) -> float:
        """Return a percentile of the error measured under a true one, minus the error that was measured."""
        return float(np.percentile(np.abs(true * direction + noise).sum(axis=1), percentile)) - measured

    # Noise cannot hide an error of this size, so the sign of the surplus changes below it.
    limit = measured + 10 * float(error.sum())
    low, high = (
        0.0 if surplus(0, percentile) >= 0 else float(brentq(surplus, 0, limit, args=(percentile,), xtol=1e-5))
        for percentile in (100 - _TAIL_PERCENT, _TAIL_PERCENT)
    )
    return low, high


def image_terms(predictions: LabelledPredictions) -> Floats:
    """Return (image, term): confusion cells, log loss, and confidence minus correctness in each calibration bin."""
    probabilities = predictions.probabilities.astype(np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    truth, predicted = predictions.class_indices, probabilities.argmax(axis=1)
    images = np.arange(len(truth))
    num_classes = len(predictions.emotions)
    cells = np.zeros((len(truth), num_classes**2))
    cells[images, truth * num_classes + predicted] = 1
    losses = -np.log(np.clip(probabilities[images, truth], np.finfo(np.float64).eps, 1))
    confidence = probabilities.max(axis=1)
    gaps = np.zeros((len(truth), NUM_CALIBRATION_BINS))
    gaps[images, confidence_bins(confidence)] = confidence - (predicted == truth)
    return np.hstack([cells, losses[:, None], gaps])


def scores_from_sums(sums: Floats, emotions: Sequence[str]) -> dict[str, Floats]:
    """Return each score (resample,) from sums (resample, term) of `image_terms`."""
    num_classes = len(emotions)
    cells, losses, gaps = np.split(sums, [num_classes**2, num_classes**2 + 1], axis=1)
    confusion = cells.reshape(-1, num_classes, num_classes)
    total = confusion.sum(axis=(1, 2))
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    true, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
    rates = {
        "precision": hits / np.maximum(predicted, 1),
        "recall": hits / np.maximum(true, 1),
        "f1": 2 * hits / np.maximum(true + predicted, 1),
    }
    by_emotion = {
        f"{rate}_{emotion}": values[:, index]
        for rate, values in rates.items()
        for index, emotion in enumerate(emotions)
    }
    return {
        "accuracy": hits.sum(axis=1) / total,
        "macro_f1": rates["f1"].mean(axis=1),
        "log_loss": losses[:, 0] / total,
        "calibration_error": np.abs(gaps).sum(axis=1) / total,
        **by_emotion,
    }
