"""Logits of the validation split, and the temperature that calibrates them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_softmax, softmax

from emotion_assets.steps.splits.splits import Split
from emotion_assets.steps.training.model import EmotionNet, preprocess

_BATCH: Final = 512
_LOG_TEMPERATURES: Final = (-2.3, 2.3)


def predict_logits(network: EmotionNet, split: Split) -> npt.NDArray[np.float32]:
    """Return logits, float32 (image, emotion), for all images of a split: the mean of both mirror images."""
    network = network.cpu().float().eval()
    with torch.inference_mode():
        batches = [preprocess(chunk) for chunk in torch.split(torch.from_numpy(split.pixels), _BATCH)]
        logits = [(network(batch) + network(batch.flip(3))) / 2 for batch in batches]
    return torch.cat(logits).numpy()


def fit_temperature(logits: npt.NDArray[np.float32], class_indices: npt.NDArray[np.int64]) -> float:
    """Return the temperature, 0.1 to 10, at which the mean confidence of `logits` (image, emotion) is the accuracy.

    The temperature of the smallest log loss (Guo et al. 2017) leaves networks that were trained with label smoothing
    overconfident even on the faces that it was fitted to; `docs/log.md` has the comparison.
    """
    # A pseudo-count of each outcome (Platt 1999): a few dozen correctly classified faces justify no confidence of 1.
    target = (int((logits.argmax(axis=1) == class_indices).sum()) + 1) / (len(logits) + 2)

    def excess(log_temperature: float) -> float:
        probabilities: npt.NDArray[np.float64] = softmax(logits / np.exp(log_temperature), axis=1)
        return float(probabilities.max(axis=1).mean()) - target

    low, high = _LOG_TEMPERATURES
    # Confidence falls with temperature; where no temperature is enough, the limit is the best.
    if excess(low) <= 0:
        return float(np.exp(low))
    return float(np.exp(high if excess(high) >= 0 else float(brentq(excess, low, high))))


def fit_log_loss_temperature(logits: npt.NDArray[np.float32], class_indices: npt.NDArray[np.int64]) -> float:
    """Return the temperature, 0.1 to 10, of the smallest log loss (Guo et al. 2017); teachers use it."""
    num_images, num_classes = logits.shape
    prior = num_classes / (num_images + num_classes)  # a pseudo-count of each class

    def log_loss(log_temperature: float) -> float:
        scaled: npt.NDArray[Any] = log_softmax(logits / np.exp(log_temperature), axis=1)
        labelled = scaled[np.arange(num_images), class_indices].mean()
        return -float((1 - prior) * labelled + prior * scaled.mean())

    return float(np.exp(minimize_scalar(log_loss, bounds=_LOG_TEMPERATURES, method="bounded").x))
