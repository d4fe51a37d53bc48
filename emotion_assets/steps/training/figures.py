"""Charts of a training run and of a hyperparameter search, as SVG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from emotion_assets.steps.report_images import encode_svg


def learning_curve_figure(history: Sequence[dict[str, float]]) -> bytes:
    """Draw loss and scores over the epochs; return an SVG."""
    epochs = [record["epoch"] for record in history]
    figure = Figure(figsize=(8, 3))
    plots = (("upper right", ("train/loss", "val/loss")), ("lower right", ("val/accuracy", "val/macro_f1")))
    for axes, (corner, names) in zip(figure.subplots(1, 2), plots, strict=True):
        for name in names:
            axes.plot(epochs, [record[name] for record in history], label=name)
        axes.set_xlabel("epoch")
        axes.legend(loc=corner)
        axes.grid(alpha=0.3)
    return encode_svg(figure)


def tuning_figure(trials: pd.DataFrame) -> bytes:
    """Draw the validation loss of every completed trial against each of its parameters; return an SVG."""
    complete = trials[trials["state"] == "complete"]
    names = [name for name in trials.columns if name not in ("number", "state", "val_loss")]
    figure = Figure(figsize=(2.6 * len(names), 2.8), layout="tight")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names), sharey=True)), names, strict=True):
        axes.scatter(complete[name], complete["val_loss"], s=14)
        is_log = complete[name].min() > 0 and complete[name].max() > 8 * complete[name].min()
        axes.set(xlabel=name, xscale="log" if is_log else "linear")
    figure.axes[0].set_ylabel("validation loss")
    return encode_svg(figure)
