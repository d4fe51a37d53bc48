"""The images of an evaluation: charts as PNG, faces as WebP."""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import ConfusionMatrixDisplay, average_precision_score, precision_recall_curve

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.images import Pixels
from emotion_assets.steps.evaluation.scores import (
    NUM_CALIBRATION_BINS,
    LabelledPredictions,
    Scores,
    risk_coverage,
    without_temperature,
)
from emotion_assets.steps.splits.splits import Split

_NUM_SHOWN: Final = 24
_TILE_PX: Final = 96
_NUM_COLUMNS: Final = 8
_DPI: Final = 80


def confusion_figure(scores: Scores) -> bytes:
    """Draw the confusion matrix twice, as fractions of each true emotion and as counts; return a PNG."""
    counts = np.array(scores.confusion)
    figure = Figure(figsize=(9.5, 4.2))
    left, right = figure.subplots(1, 2)
    fractions = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    for axes, values, form, title in (
        (left, fractions, ".2f", "fraction of each true emotion"),
        (right, counts, "d", f"counts of {scores.num_images:,} faces"),
    ):
        limits = {"vmin": 0, "vmax": 1} if form == ".2f" else {"vmin": 0}
        display = ConfusionMatrixDisplay(values, display_labels=list(EMOTIONS))
        display.plot(ax=axes, cmap="Blues", colorbar=False, values_format=form, im_kw=limits)
        axes.set(xlabel="predicted", ylabel="true", title=title)
    figure.tight_layout()
    return _png(figure)


def learning_curve_figure(history: list[dict[str, float]]) -> bytes:
    """Draw loss and accuracy over the epochs; return a PNG."""
    epochs = [record["epoch"] for record in history]
    figure = Figure(figsize=(8, 3))
    left, right = figure.subplots(1, 2)
    for name in ("train/loss", "val/loss"):
        left.plot(epochs, [record[name] for record in history], label=name)
    for name in ("val/accuracy", "val/macro_f1"):
        right.plot(epochs, [record[name] for record in history], label=name)
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.legend()
        axes.grid(alpha=0.3)
    return _png(figure)


def tuning_figure(trials: pd.DataFrame) -> bytes:
    """Draw the validation loss of every trial that ended against each of its parameters; return a PNG."""
    ended = trials[trials["state"] == "complete"]
    names = [name for name in trials.columns if name not in ("number", "state", "val_loss")]
    figure = Figure(figsize=(2.6 * len(names), 2.8))
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names), sharey=True)), names, strict=True):
        axes.scatter(ended[name], ended["val_loss"], s=14)
        is_rate = ended[name].min() > 0 and ended[name].max() > 8 * ended[name].min()
        axes.set(xlabel=name, xscale="log" if is_rate else "linear")
    figure.axes[0].set_ylabel("validation loss")
    figure.tight_layout()
    return _png(figure)


def reliability_figure(answers: LabelledPredictions, temperature: float) -> bytes:
    """Draw how often answers of each confidence are right, before and after temperature; return a PNG."""
    before = without_temperature(answers, temperature)
    figure = Figure(figsize=(8, 3.2))
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color="gray", linestyle="--")
    for name, given in (("raw", before), ("with temperature", answers)):
        counts, confidence, success = _bins(given)
        left.plot(confidence[counts > 0], success[counts > 0], marker="o", markersize=4, label=name)
        right.hist(given.probabilities.max(axis=1), bins=NUM_CALIBRATION_BINS, range=(0, 1), alpha=0.6, label=name)
    left.set(xlabel="confidence", ylabel="fraction of right answers", xlim=(0, 1), ylim=(0, 1))
    right.set(xlabel="confidence", ylabel="answers", xlim=(0, 1))
    left.legend()
    right.legend()
    return _png(figure)


def _bins(answers: LabelledPredictions) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Return count, mean confidence and success of each bin of confidence."""
    confidence = answers.probabilities.max(axis=1)
    bins = np.clip((confidence * NUM_CALIBRATION_BINS).astype(int), 0, NUM_CALIBRATION_BINS - 1)
    counts = np.bincount(bins, minlength=NUM_CALIBRATION_BINS)
    confidence_sum, success_sum = (
        np.bincount(bins, values, NUM_CALIBRATION_BINS) for values in (confidence, answers.is_right)
    )
    return counts, confidence_sum / np.maximum(1, counts), success_sum / np.maximum(1, counts)


def precision_recall_figure(answers: LabelledPredictions) -> bytes:
    """Draw precision over recall for each emotion against all others; return a PNG."""
    figure = Figure(figsize=(5, 3.6))
    axes = figure.subplots()
    for index, emotion in enumerate(EMOTIONS):
        truth = answers.class_indices == index
        if truth.any():
            precision, recall, _ = precision_recall_curve(truth, answers.probabilities[:, index])
            area = average_precision_score(truth, answers.probabilities[:, index])
            axes.plot(recall, precision, label=f"{emotion} ({area:.2f})")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(title="average precision")
    axes.grid(alpha=0.3)
    return _png(figure)


def risk_coverage_figure(answers: LabelledPredictions) -> bytes:
    """Draw the accuracy on the most confident fraction of images, over that fraction; return a PNG."""
    points = risk_coverage(answers)
    figure = Figure(figsize=(5, 3.2))
    axes = figure.subplots()
    axes.plot([point["coverage"] for point in points], [point["accuracy"] for point in points], marker="o")
    axes.set(xlabel="fraction of images answered, most confident first", ylabel="accuracy", xlim=(0, 1.02))
    axes.grid(alpha=0.3)
    return _png(figure)


def mistakes_sheet(answers: LabelledPredictions, split: Split) -> tuple[bytes, list[str]]:
    """Lay out the most confident mistakes with what the network looked at; return a WebP and captions."""
    wrong = np.flatnonzero(~answers.is_right)
    confidence = answers.probabilities.max(axis=1)
    return _sheet(answers, split, wrong[np.argsort(-confidence[wrong], kind="stable")][:_NUM_SHOWN])


def uncertain_sheet(answers: LabelledPredictions, split: Split) -> tuple[bytes, list[str]]:
    """Lay out the least certain images with what the network looked at; return a WebP and captions."""
    return _sheet(answers, split, np.argsort(answers.probabilities.max(axis=1), kind="stable")[:_NUM_SHOWN])


def _sheet(answers: LabelledPredictions, split: Split, chosen: npt.NDArray[np.int64]) -> tuple[bytes, list[str]]:
    predicted = answers.probabilities.argmax(axis=1)
    captions = [
        f"{EMOTIONS[answers.class_indices[i]]}, answered {EMOTIONS[predicted[i]]} "
        f"({answers.probabilities[i, predicted[i]]:.2f})"
        for i in chosen
    ]
    maps = answers.activation_maps
    tiles = [_tile(split.pixels[i], None if maps is None else maps[i, predicted[i]]) for i in chosen]
    rows = max(1, -(-len(tiles) // _NUM_COLUMNS))
    sheet = Image.new("RGB", (_NUM_COLUMNS * _TILE_PX, rows * _TILE_PX), "white")
    for number, tile in enumerate(tiles):
        row, column = divmod(number, _NUM_COLUMNS)
        sheet.paste(tile, (column * _TILE_PX, row * _TILE_PX))
    buffer = io.BytesIO()
    sheet.save(buffer, "WEBP", quality=75)
    return buffer.getvalue(), captions


def _tile(pixels: Pixels, activation_map: npt.NDArray[np.float32] | None) -> Image.Image:
    """Return a face, reddened where the network saw evidence for its answer."""
    side = _TILE_PX - 4
    face = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC).convert("RGB")
    if activation_map is not None:
        positive = np.maximum(activation_map.astype(np.float64), 0)
        strength = Image.fromarray(np.uint8(255 * positive / max(float(positive.max()), 1e-9)))
        smooth = np.asarray(strength.resize((side, side), Image.Resampling.BICUBIC)) / 255
        colors = Image.fromarray(np.uint8(255 * colormaps["inferno"](smooth)[:, :, :3]))
        face = Image.composite(colors, face, Image.fromarray(np.uint8(110 * smooth)))
    return face


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, bbox_inches="tight")
    return buffer.getvalue()
