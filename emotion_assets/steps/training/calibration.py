"""What a network answers for validation faces, and the temperature that makes its probabilities honest."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from emotion_assets.steps.data.split import Split
from emotion_assets.steps.training.network import EmotionNet, prepare

_BATCH: Final = 512


def logits_of(network: EmotionNet, split: Split) -> npt.NDArray[np.float32]:
    """Return logits, float32 (picture, emotion), for all pictures of a split: the mean of both mirror images."""
    network = network.cpu().float().eval()
    with torch.inference_mode():
        batches = [prepare(chunk) for chunk in torch.split(torch.from_numpy(split.pixels), _BATCH)]
        parts = [(network(batch) + network(batch.flip(3))) / 2 for batch in batches]
    return torch.cat(parts).numpy()


def fit_temperature(logits: npt.NDArray[np.float32], class_indices: npt.NDArray[np.int64]) -> float:
    """Return the temperature, 0.1 to 10, that makes the log loss smallest (Guo et al. 2017).

    The labels keep a doubt that shrinks with their number, as if each emotion had been seen once more (Platt 1999,
    "Probabilistic outputs for support vector machines"): a few dozen faces, all answered rightly, are no proof that
    nothing can go wrong.

    Args:
        logits: float (picture, emotion).
        class_indices: int (picture,).
    """
    num_pictures, num_classes = logits.shape
    doubt = num_classes / (num_pictures + num_classes)

    def log_loss(log_temperature: float) -> float:
        scaled: npt.NDArray[Any] = log_softmax(logits / np.exp(log_temperature), axis=1)
        labelled = scaled[np.arange(num_pictures), class_indices].mean()
        return -float((1 - doubt) * labelled + doubt * scaled.mean())

    return float(np.exp(minimize_scalar(log_loss, bounds=(-2.3, 2.3), method="bounded").x))
