"""What a network answers for validation faces, and the temperature that makes its probabilities honest."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_softmax, softmax

from emotion_assets.steps.splits.splits import Split
from emotion_assets.steps.training.model import EmotionNet, prepare

_BATCH: Final = 512
_LOG_TEMPERATURES: Final = (-2.3, 2.3)


def predict_logits(network: EmotionNet, split: Split) -> npt.NDArray[np.float32]:
    """Return logits, float32 (image, emotion), for all images of a split: the mean of both mirror images."""
    network = network.cpu().float().eval()
    with torch.inference_mode():
        batches = [prepare(chunk) for chunk in torch.split(torch.from_numpy(split.pixels), _BATCH)]
        parts = [(network(batch) + network(batch.flip(3))) / 2 for batch in batches]
    return torch.cat(parts).numpy()


def fit_temperature(logits: npt.NDArray[np.float32], class_indices: npt.NDArray[np.int64]) -> float:
    """Return the temperature, 0.1 to 10, with which answers are on average as sure as they are right.

    People read the probability of the answer, so that is what is made honest. The temperature of the least log loss
    (Guo et al. 2017) leaves networks of smoothed labels surer than they are right, on the very faces that it was fitted
    to; `docs/log.md` has the comparison.

    Args:
        logits: float (image, emotion).
        class_indices: int (image,).
    """
    num_images, num_classes = logits.shape
    doubt = _prior_weight(num_images, num_classes)
    fraction_right = float((logits.argmax(axis=1) == class_indices).mean())
    wanted: float = (1 - doubt) * fraction_right + doubt / num_classes

    def surplus(log_temperature: float) -> float:
        probabilities: npt.NDArray[np.float64] = softmax(logits / np.exp(log_temperature), axis=1)
        return float(probabilities.max(axis=1).mean()) - wanted

    low, high = _LOG_TEMPERATURES
    # The hotter, the less sure; at an end where that is still not enough, there is no more to be had.
    if surplus(low) <= 0:
        return float(np.exp(low))
    return float(np.exp(high if surplus(high) >= 0 else float(brentq(surplus, low, high))))


def least_log_loss_temperature(logits: npt.NDArray[np.float32], class_indices: npt.NDArray[np.int64]) -> float:
    """Return the temperature, 0.1 to 10, that makes the log loss smallest (Guo et al. 2017): that of a teacher.

    Args:
        logits: float (image, emotion).
        class_indices: int (image,).
    """
    num_images, num_classes = logits.shape
    doubt = _prior_weight(num_images, num_classes)

    def log_loss(log_temperature: float) -> float:
        scaled: npt.NDArray[Any] = log_softmax(logits / np.exp(log_temperature), axis=1)
        labelled = scaled[np.arange(num_images), class_indices].mean()
        return -float((1 - doubt) * labelled + doubt * scaled.mean())

    return float(np.exp(minimize_scalar(log_loss, bounds=_LOG_TEMPERATURES, method="bounded").x))


def _prior_weight(num_images: int, num_classes: int) -> float:
    """Return the fraction of doubt in the labels: as if each emotion had been seen once more.

    It shrinks with their number (Platt 1999, "Probabilistic outputs for support vector machines"): a few dozen faces,
    all answered rightly, are no proof that nothing can go wrong.
    """
    return num_classes / (num_images + num_classes)
