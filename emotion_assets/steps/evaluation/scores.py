"""Score a bundle on labelled images, with the ONNX graph that the service runs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, precision_recall_fscore_support

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.classifier import Classifier
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.steps.splits.splits import Split

NUM_CALIBRATION_BINS: Final = 15
SCORE_NAMES: Final = ("accuracy", "macro_f1", "log_loss", "calibration_error")


@dataclass(frozen=True, slots=True)
class Scores:
    """Classification metrics on labelled images; rates are fractions in 0..1."""

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
    """Counts; rows are true, columns predicted emotions, both in the order of the classes."""

    @property
    def emotions(self) -> tuple[str, ...]:
        """The classes, in order."""
        return tuple(self.recall)

    @property
    def weakest(self) -> str:
        """The emotion with the smallest recall, of those that have images."""
        return min(
            (emotion for emotion in self.emotions if self.support[emotion]), key=lambda emotion: self.recall[emotion]
        )

    def flatten(self) -> dict[str, float]:
        """Return scores and recalls as `test/name`, for tables and plots over time."""
        scores = {f"test/{name}": getattr(self, name) for name in SCORE_NAMES}
        return scores | {f"test/recall_{emotion}": value for emotion, value in self.recall.items()}


@dataclass(frozen=True, slots=True)
class LabelledPredictions:
    """A model's predictions for a split, with the labels."""

    version: str
    probabilities: npt.NDArray[np.float32]
    """float32 (image, emotion)."""
    class_indices: npt.NDArray[np.int64]
    """Labels, int64 (image,)."""
    activation_maps: npt.NDArray[np.float32] | None = None
    """float32 (image, emotion, row, column), if asked for."""
    emotions: tuple[str, ...] = EMOTIONS
    """The classes, in order."""

    def select(self, chosen: npt.NDArray[np.bool_]) -> LabelledPredictions:
        """Return those for some of the images, bool (image,), without activation maps."""
        probabilities, class_indices = self.probabilities[chosen], self.class_indices[chosen]
        return LabelledPredictions(self.version, probabilities, class_indices, emotions=self.emotions)

    @property
    def is_correct(self) -> npt.NDArray[np.bool_]:
        """Which predictions agree with the label, bool (image,)."""
        return np.asarray(self.probabilities.argmax(axis=1) == self.class_indices)

    @property
    def confidence(self) -> npt.NDArray[np.float32]:
        """The highest probability of each image, float32 (image,)."""
        return np.asarray(self.probabilities.max(axis=1))


def predict_split(classifier: Classifier, split: Split, *, with_maps: bool = False) -> LabelledPredictions:
    """Predict every image of a split.

    Raises:
        UnusableDataError: the split is empty, or has other classes than the model.
    """
    if len(split.pixels) == 0:
        raise UnusableDataError("The split has no images to evaluate. Add images and materialize greyscale_splits.")
    if classifier.emotions != split.emotions:
        raise UnusableDataError(
            f"Model {classifier.version} is for the classes {', '.join(classifier.emotions)}; the splits have "
            f"{', '.join(split.emotions)}. Materialize trained_cnn for a model of these splits."
        )
    predictions = classifier.predict(split.pixels, with_maps=with_maps)
    return LabelledPredictions(
        classifier.version,
        predictions.probabilities,
        split.class_indices,
        predictions.activation_maps,
        split.emotions,
    )


def predict_majority(split: Split) -> LabelledPredictions:
    """Return the majority baseline: for every image the class priors of the split as probabilities."""
    priors = np.bincount(split.class_indices, minlength=len(split.emotions)) / len(split.class_indices)
    probabilities = np.tile(priors.astype(np.float32), (len(split.class_indices), 1))
    return LabelledPredictions("majority", probabilities, split.class_indices, emotions=split.emotions)


def remove_temperature(predictions: LabelledPredictions, temperature: float) -> LabelledPredictions:
    """Return the predictions as they were before `temperature` divided the logits."""
    powers = np.clip(predictions.probabilities.astype(np.float64), 1e-30, 1) ** temperature
    probabilities = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return dataclasses.replace(predictions, probabilities=probabilities)


def confidence_bins(confidence: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the calibration bin of each confidence, int64 (image,)."""
    return np.asarray(np.clip((confidence * NUM_CALIBRATION_BINS).astype(int), 0, NUM_CALIBRATION_BINS - 1))


def risk_coverage(predictions: LabelledPredictions) -> list[dict[str, float]]:
    """Return the selective accuracy on the most confident 10 %, 20 % … 100 % of the images.

    Source: El-Yaniv and Wiener 2010, "On the foundations of noise-free selective classification".
    """
    confidence = predictions.confidence
    order = np.argsort(-confidence, kind="stable")
    points = []
    for tenths in range(1, 11):
        num = max(1, round(len(order) * tenths / 10))
        chosen = order[:num]
        points.append(
            {
                "coverage": num / len(order),
                "accuracy": float(predictions.is_correct[chosen].mean()),
                "min_confidence": float(confidence[chosen[-1]]),
            }
        )
    return points


def compute_scores(predictions: LabelledPredictions) -> Scores:
    """Compute all metrics; precision, recall and F1 of an emotion without images are 0."""
    truth, probabilities = predictions.class_indices, predictions.probabilities.astype(np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predicted, emotions = probabilities.argmax(axis=1), predictions.emotions
    indices = list(range(len(emotions)))
    rates: Any = precision_recall_fscore_support(truth, predicted, labels=indices, zero_division=0)
    precision, recall, f1, support = (dict(zip(emotions, values.tolist(), strict=True)) for values in rates)
    confidence = probabilities.max(axis=1)
    gaps = np.bincount(confidence_bins(confidence), confidence - (predicted == truth))
    return Scores(
        num_images=len(truth),
        accuracy=float(accuracy_score(truth, predicted)),
        # Images of another source may have only some of the classes.
        macro_f1=float(f1_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0)),
        log_loss=float(log_loss(truth, probabilities, labels=indices)),
        calibration_error=float(np.abs(gaps).sum() / len(truth)),
        precision=precision,
        recall=recall,
        f1=f1,
        # scikit-learn's are fractions if every prediction is wrong.
        support={emotion: int(count) for emotion, count in support.items()},
        confusion=confusion_matrix(truth, predicted, labels=indices).tolist(),
    )
