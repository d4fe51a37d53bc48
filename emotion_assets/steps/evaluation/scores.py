"""Score a bundle on labelled images: the served graph itself, not the network in the trainer's memory."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, precision_recall_fscore_support
from torchmetrics.functional.classification import multiclass_calibration_error

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.classifier import Classifier
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.steps.splits.splits import Split

NUM_CALIBRATION_BINS: Final = 15

_CLASS_INDICES: Final = list(range(len(EMOTIONS)))


@dataclass(frozen=True, slots=True)
class Scores:
    """How good the answers for labelled images are; rates are fractions in 0..1."""

    num_images: int
    accuracy: float
    macro_f1: float
    log_loss: float
    calibration_error: float
    """Expected calibration error over 15 bins of equal width."""
    precision: dict[str, float]
    recall: dict[str, float]
    f1: dict[str, float]
    support: dict[str, int]
    """Images of each emotion."""
    confusion: list[list[int]]
    """Counts; rows are true, columns predicted emotions, both in the order of EMOTIONS."""

    @property
    def weakest(self) -> str:
        """The emotion with the smallest recall, of those that have images."""
        return min((emotion for emotion in EMOTIONS if self.support[emotion]), key=lambda emotion: self.recall[emotion])

    def flat(self, stage: str) -> dict[str, float]:
        """Return the scores as `stage/name`, for tables and plots over time."""
        scores = {
            f"{stage}/accuracy": self.accuracy,
            f"{stage}/macro_f1": self.macro_f1,
            f"{stage}/log_loss": self.log_loss,
            f"{stage}/calibration_error": self.calibration_error,
        }
        return scores | {f"{stage}/recall_{emotion}": value for emotion, value in self.recall.items()}


@dataclass(frozen=True, slots=True)
class LabelledPredictions:
    """A model's answers for the images of a split, beside the truth."""

    version: str
    probabilities: npt.NDArray[np.float32]
    """float32 (image, emotion)."""
    class_indices: npt.NDArray[np.int64]
    """The true emotions, int64 (image,)."""
    activation_maps: npt.NDArray[np.float32] | None = None
    """float32 (image, emotion, row, column), if asked for."""

    @property
    def is_right(self) -> npt.NDArray[np.bool_]:
        """Which answers are right, bool (image,)."""
        return np.asarray(self.probabilities.argmax(axis=1) == self.class_indices)


def answer(classifier: Classifier, split: Split, *, with_maps: bool = False) -> LabelledPredictions:
    """Let a model answer for every image of a split.

    Raises:
        UnusableDataError: the split is empty.
    """
    if len(split.pixels) == 0:
        raise UnusableDataError("There is not an image to evaluate on. Add images and materialize greyscale_splits.")
    predictions = classifier.predict(split.pixels, with_maps=with_maps)
    return LabelledPredictions(
        classifier.version, predictions.probabilities, split.class_indices, predictions.activation_maps
    )


def without_temperature(answers: LabelledPredictions, temperature: float) -> LabelledPredictions:
    """Return the answers as they were before `temperature` divided the logits."""
    powers = np.clip(answers.probabilities.astype(np.float64), 1e-30, 1) ** temperature
    probabilities = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return dataclasses.replace(answers, probabilities=probabilities)


def risk_coverage(answers: LabelledPredictions) -> list[dict[str, float]]:
    """Return the accuracy on the most confident part of the images, for ten fractions of them.

    Source: El-Yaniv and Wiener 2010, "On the foundations of noise-free selective classification".
    """
    confidence = answers.probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    points = []
    for tenths in range(1, 11):
        num = max(1, round(len(order) * tenths / 10))
        chosen = order[:num]
        points.append(
            {
                "coverage": num / len(order),
                "accuracy": float(answers.is_right[chosen].mean()),
                "min_confidence": float(confidence[chosen[-1]]),
            }
        )
    return points


def majority_baseline(answers: LabelledPredictions) -> LabelledPredictions:
    """Return what always saying the most frequent emotion would answer, with that emotion's shares as certainty."""
    fractions = np.bincount(answers.class_indices, minlength=len(EMOTIONS)) / len(answers.class_indices)
    probabilities = np.tile(fractions.astype(np.float32), (len(answers.class_indices), 1))
    return LabelledPredictions("majority", probabilities, answers.class_indices)


def score(answers: LabelledPredictions) -> Scores:
    """Compute the scores of a model's answers; a class without images gets 0, as scikit-learn's rule is."""
    truth, probabilities = answers.class_indices, answers.probabilities.astype(np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predicted = probabilities.argmax(axis=1)
    rates: Any = precision_recall_fscore_support(truth, predicted, labels=_CLASS_INDICES, zero_division=0)
    precision, recall, f1, support = rates
    error = multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(truth), len(EMOTIONS), n_bins=NUM_CALIBRATION_BINS
    )

    def by_emotion(values: Any) -> dict[str, float]:
        return {emotion: float(value) for emotion, value in zip(EMOTIONS, values, strict=True)}

    return Scores(
        num_images=len(truth),
        accuracy=float(accuracy_score(truth, predicted)),
        macro_f1=float(f1_score(truth, predicted, labels=_CLASS_INDICES, average="macro", zero_division=0)),
        log_loss=float(log_loss(truth, probabilities, labels=_CLASS_INDICES)),
        calibration_error=float(error),
        precision=by_emotion(precision),
        recall=by_emotion(recall),
        f1=by_emotion(f1),
        support={emotion: int(value) for emotion, value in zip(EMOTIONS, support, strict=True)},
        confusion=confusion_matrix(truth, predicted, labels=_CLASS_INDICES).tolist(),
    )
