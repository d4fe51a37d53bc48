"""The images of an evaluation report: charts as SVG, faces as WebP."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image
from sklearn.calibration import calibration_curve
from sklearn.metrics import ConfusionMatrixDisplay, average_precision_score, precision_recall_curve

from emotion_assets.core.images import Pixels
from emotion_assets.steps.evaluation.scores import (
    NUM_CALIBRATION_BINS,
    LabelledPredictions,
    Scores,
    remove_temperature,
    risk_coverage,
)
from emotion_assets.steps.report_images import contact_sheet, encode_svg, label_classes
from emotion_assets.steps.splits.splits import Split

_NUM_SHOWN: Final = 24
_TILE_PX: Final = 92
_NUM_COLUMNS: Final = 8
_MAX_READABLE: Final = 12
"""Of more classes, charts show no numbers and no legend; the table beside them has both."""
_MAX_POINTS: Final = 200
"""Of a curve; more cannot be seen."""


def confusion_figure(scores: Scores) -> bytes:
    """Draw the confusion matrix normalized by true emotion, and as counts; return an SVG."""
    counts = np.array(scores.confusion)
    is_small = len(counts) <= _MAX_READABLE
    figure = Figure(figsize=(9.5, 4.2) if is_small else (16, 7), layout="tight")
    left, right = figure.subplots(1, 2)
    fractions = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    for axes, values, form, limits, title in (
        (left, fractions, ".2f", {"vmin": 0, "vmax": 1}, "fraction of each true emotion"),
        (right, counts, "d", {"vmin": 0}, f"counts of {scores.num_images:,} images"),
    ):
        display = ConfusionMatrixDisplay(values)
        display.plot(
            include_values=is_small,
            ax=axes,
            cmap="Blues",
            colorbar=False,
            values_format=form,
            im_kw=limits,
        )
        label_classes(axes, scores.emotions, is_matrix=True)
        axes.set(xlabel="predicted", ylabel="true", title=title)
    return encode_svg(figure)


def reliability_figure(predictions: LabelledPredictions, temperature: float) -> bytes:
    """Draw the reliability diagram and the confidences, before and after temperature scaling; return an SVG."""
    figure = Figure(figsize=(8, 3.2))
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color="gray", linestyle="--")
    before = remove_temperature(predictions, temperature)
    for name, shown in (("uncalibrated", before), ("calibrated", predictions)):
        confidence = shown.confidence.clip(max=1)  # rounding may have raised it a little
        accuracies, means = calibration_curve(shown.is_correct, confidence, n_bins=NUM_CALIBRATION_BINS)
        left.plot(means, accuracies, marker="o", markersize=4, label=name)
        right.hist(confidence, bins=NUM_CALIBRATION_BINS, range=(0, 1), alpha=0.6, label=name)
    left.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    right.set(xlabel="confidence", ylabel="predictions", xlim=(0, 1))
    left.legend(loc="upper left")  # "best" takes long and warns on a busy machine
    right.legend(loc="upper left")
    return encode_svg(figure)


def precision_recall_figure(predictions: LabelledPredictions) -> bytes:
    """Draw the precision-recall curve of each emotion against all others; return an SVG."""
    figure = Figure(figsize=(5, 3.6))
    axes = figure.subplots()
    for index, emotion in enumerate(predictions.emotions):
        truth = predictions.class_indices == index
        if truth.any():
            precision, recall, _ = precision_recall_curve(truth, predictions.probabilities[:, index])
            area = average_precision_score(truth, predictions.probabilities[:, index])
            shown = np.linspace(0, len(recall) - 1, min(len(recall), _MAX_POINTS)).astype(int)
            axes.plot(recall[shown], precision[shown], label=f"{emotion} ({area:.2f})")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    if len(predictions.emotions) <= _MAX_READABLE:
        axes.legend(title="average precision", loc="lower left")
    axes.grid(alpha=0.3)
    return encode_svg(figure)


def risk_coverage_figure(predictions: LabelledPredictions) -> bytes:
    """Draw the selective accuracy over the coverage; return an SVG."""
    points = risk_coverage(predictions)
    figure = Figure(figsize=(5, 3.2))
    axes = figure.subplots()
    axes.plot([point["coverage"] for point in points], [point["accuracy"] for point in points], marker="o")
    axes.set(xlabel="coverage (most confident images first)", ylabel="selective accuracy", xlim=(0, 1.02))
    axes.grid(alpha=0.3)
    return encode_svg(figure)


def mistakes_sheet(predictions: LabelledPredictions, split: Split) -> tuple[bytes, list[str]]:
    """Lay out the most confident mistakes with their activation maps; return a WebP and captions."""
    wrong = np.flatnonzero(~predictions.is_correct)
    return _sheet(predictions, split, wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:_NUM_SHOWN])


def uncertain_sheet(predictions: LabelledPredictions, split: Split) -> tuple[bytes, list[str]]:
    """Lay out the least confident predictions with their activation maps; return a WebP and captions."""
    return _sheet(predictions, split, np.argsort(predictions.confidence, kind="stable")[:_NUM_SHOWN])


def _sheet(predictions: LabelledPredictions, split: Split, chosen: npt.NDArray[np.int64]) -> tuple[bytes, list[str]]:
    predicted, names = predictions.probabilities.argmax(axis=1), predictions.emotions
    captions = [
        f"{names[predictions.class_indices[i]]}, predicted {names[predicted[i]]} ({predictions.confidence[i]:.2f})"
        for i in chosen
    ]
    maps = predictions.activation_maps
    tiles = np.empty((len(chosen), _TILE_PX, _TILE_PX, 3), dtype=np.uint8)
    for tile, i in zip(tiles, chosen, strict=True):
        tile[:] = _tile(split.pixels[i], None if maps is None else maps[i, predicted[i]])
    return contact_sheet(tiles, _NUM_COLUMNS), captions


def _tile(pixels: Pixels, activation_map: npt.NDArray[np.float32] | None) -> Pixels:
    """Return a face, overlaid with the evidence for its predicted emotion."""
    size = (_TILE_PX, _TILE_PX)
    face = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert("RGB")
    if activation_map is not None:
        positive = np.maximum(activation_map.astype(np.float64), 0)
        strength = Image.fromarray(np.uint8(255 * positive / max(float(positive.max()), 1e-9)))
        smooth: npt.NDArray[Any] = np.asarray(strength.resize(size, Image.Resampling.BICUBIC)) / 255
        colors = Image.fromarray(np.uint8(255 * colormaps["inferno"](smooth)[:, :, :3]))
        face = Image.composite(colors, face, Image.fromarray(np.uint8(110 * smooth)))
    return np.asarray(face)
