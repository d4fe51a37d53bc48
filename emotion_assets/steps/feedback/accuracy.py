"""Estimate the accuracy of a served model from labels that people gave on request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd
from scipy.stats import binomtest

from emotion_assets.steps.feedback.labels import read_labels
from emotion_assets.steps.feedback.sampling import RANDOM

MIN_LABELS: Final = 20
"""With fewer labels the interval is too wide to be useful."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledAccuracy:
    """Accuracy on predictions that were drawn at random for labelling.

    Labels that people gave unasked are mostly corrections, and those of outliers and uncertain predictions are of hard
    images; neither estimates accuracy.
    """

    num_labels: int
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None
    """Wilson's 95 % interval; all None below 20 requested labels."""


def labelled_accuracy(requests: Mapping[str, Path], feedback_dir: Path) -> LabelledAccuracy:
    """Compare the labels of randomly drawn predictions with the predictions.

    `requests` are CSV files of `sample_for_labelling` by the time of the request (ISO 8601), the oldest first.
    """
    requested: dict[str, tuple[str, str]] = {}
    for time, path in requests.items():
        for row in pd.read_csv(path, dtype=str, keep_default_na=False).itertuples():
            if row.reason == RANDOM:
                requested.setdefault(str(row.prediction_id), (str(row.emotion), time))
    unasked: list[bool] = []
    on_request: list[bool] = []
    for label in read_labels(feedback_dir):
        if label.prediction_id in requested:
            predicted, time = requested[label.prediction_id]
            (on_request if label.time >= time else unasked).append(predicted == label.emotion)
    num_labels = len(unasked) + len(on_request)
    if len(on_request) < MIN_LABELS:
        return LabelledAccuracy(num_labels=num_labels)
    # Predictions labelled before the request form a stratum of known accuracy; the requested labels estimate the rest.
    weight = 1 - len(unasked) / len(requested)
    interval = binomtest(sum(on_request), len(on_request)).proportion_ci(method="wilson")
    accuracy, low, high = (
        sum(unasked) / len(requested) + weight * rate
        for rate in (sum(on_request) / len(on_request), float(interval.low), float(interval.high))
    )
    return LabelledAccuracy(num_labels=num_labels, accuracy=accuracy, low=low, high=high)
