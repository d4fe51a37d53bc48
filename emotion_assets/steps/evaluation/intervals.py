"""How sure the scores are: 95 % intervals, by drawing the test images again and again with replacement.

Every score is a function of a few sums over images, so one matrix product gives the sums of all draws at
once; the interval is that of the percentiles (Efron and Tibshirani 1993, "An introduction to the bootstrap").

The calibration error needs another way: chance alone makes it larger than it is, most of all when it is
small, and percentiles then miss the truth. Its interval holds every true error under which the measured one
would not be surprising (a test turned round), with gaps between confidence and success that are spread over
the bins as their standard errors are. benchmarks/interval_coverage.py checks both by simulation.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.steps.evaluation.scores import NUM_CALIBRATION_BINS, LabelledPredictions

Interval = tuple[float, float]
_Array = npt.NDArray[np.float64]

NUM_DRAWS: Final = 1000
LEVEL: Final = 0.95
_NUM_CLASSES: Final = len(EMOTIONS)


def intervals(answers: LabelledPredictions, num_draws: int = NUM_DRAWS, seed: int = 0) -> dict[str, Interval]:
    """Return the 95 % interval of every score.

    Args:
        answers: a model's answers beside the truth.
        num_draws: how often the images are drawn again.
        seed: makes the result reproducible.

    Returns:
        (low, high) by name: `accuracy`, `macro_f1`, `log_loss`, `calibration_error`, and `precision_angry`,
        `recall_angry`, `f1_angry` and so on for every emotion.
    """
    features = _summands(answers)
    num_images = len(features)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(num_images, np.full(num_images, 1 / num_images), num_draws).astype(np.float64)
    tail = 100 * (1 - LEVEL) / 2
    found = {}
    for name, values in _scores_of(weights @ features).items():
        low, high = np.percentile(values, [tail, 100 - tail])
        found[name] = (float(low), float(high))
    found["calibration_error"] = _calibration_interval(features[:, -NUM_CALIBRATION_BINS:], rng)
    return found


def _calibration_interval(gaps: _Array, rng: np.random.Generator) -> Interval:
    """Return the interval of the calibration error from (image, bin): confidence minus success, 0 elsewhere."""
    mean = gaps.mean(axis=0)
    error = np.sqrt(np.maximum((gaps**2).mean(axis=0) - mean**2, 0) / len(gaps))
    measured = float(np.abs(mean).sum())
    if not error.sum() > 0:
        return measured, measured
    direction = error / error.sum()
    noise = rng.normal(size=(NUM_DRAWS, len(mean))) * error

    def surplus(true: float, percentile: float) -> float:
        """Return by how much a percentile of what would be measured exceeds what was."""
        return float(np.percentile(np.abs(true * direction + noise).sum(axis=1), percentile)) - measured

    tail = 100 * (1 - LEVEL) / 2
    # Far beyond what noise can hide, so that the sign has surely changed.
    limit = measured + 10 * float(error.sum())
    low = 0.0 if surplus(0, 100 - tail) >= 0 else float(brentq(surplus, 0, limit, args=(100 - tail,), xtol=1e-5))
    high = 0.0 if surplus(0, tail) >= 0 else float(brentq(surplus, 0, limit, args=(tail,), xtol=1e-5))
    return low, high


def _summands(answers: LabelledPredictions) -> _Array:
    """Return (image, column): confusion cells, log loss, and confidence less success in each bin of confidence."""
    probabilities = answers.probabilities.astype(np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    truth, predicted = answers.class_indices, probabilities.argmax(axis=1)
    number = np.arange(len(truth))
    cells = np.zeros((len(truth), _NUM_CLASSES**2))
    cells[number, truth * _NUM_CLASSES + predicted] = 1
    losses = -np.log(np.clip(probabilities[number, truth], np.finfo(np.float64).eps, 1))
    confidence = probabilities.max(axis=1)
    bins = np.clip((confidence * NUM_CALIBRATION_BINS).astype(int), 0, NUM_CALIBRATION_BINS - 1)
    is_in_bin = np.zeros((len(truth), NUM_CALIBRATION_BINS))
    is_in_bin[number, bins] = 1
    is_right = (predicted == truth).astype(np.float64)
    gaps = is_in_bin * (confidence - is_right)[:, None]
    return np.hstack([cells, losses[:, None], gaps])


def _scores_of(sums: _Array) -> dict[str, _Array]:
    """Return each score (draw,) from the sums (draw, column) of `_summands`."""
    cells, losses, gaps = np.split(sums, [_NUM_CLASSES**2, _NUM_CLASSES**2 + 1], axis=1)
    confusion = cells.reshape(-1, _NUM_CLASSES, _NUM_CLASSES)
    total = confusion.sum(axis=(1, 2))
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    true, said = confusion.sum(axis=2), confusion.sum(axis=1)
    rates = {
        "precision": hits / np.maximum(said, 1),
        "recall": hits / np.maximum(true, 1),
        "f1": 2 * hits / np.maximum(true + said, 1),
    }
    by_emotion = {
        f"{rate}_{emotion}": values[:, index]
        for rate, values in rates.items()
        for index, emotion in enumerate(EMOTIONS)
    }
    return {
        "accuracy": hits.sum(axis=1) / total,
        "macro_f1": rates["f1"].mean(axis=1),
        "log_loss": losses[:, 0] / total,
        "calibration_error": np.abs(gaps).sum(axis=1) / total,
        **by_emotion,
    }
