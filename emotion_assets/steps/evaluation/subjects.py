"""Accuracy by subject: several images of one person are no independent evidence.

The interval follows from how the subjects differ: from the variance of a ratio of two sums over them (Cochran 1977,
"Sampling techniques").
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from scipy.stats import norm
from scipy.stats import t as student_t

from emotion_assets.steps.evaluation.intervals import Interval, proportion_interval
from emotion_assets.steps.evaluation.scores import LabelledPredictions
from emotion_assets.steps.splits.splits import Split, read_assignments

MIN_SUBJECTS: Final = 2
_TAIL: Final = 0.025


@dataclass(frozen=True, slots=True)
class SubjectAccuracy:
    """The accuracy on one subject's test images."""

    subject: str
    num_images: int
    accuracy: float


@dataclass(frozen=True, slots=True)
class SubjectScores:
    """The accuracy on each subject of the test split, and what that says about other people."""

    by_subject: list[SubjectAccuracy]
    """The lowest accuracy first."""
    mean_accuracy: float
    """Each subject counts once, whatever its number of images."""
    interval: Interval
    """95 % interval of the accuracy on all images; an image without a known subject counts as a subject of its own."""


def score_subjects(predictions: LabelledPredictions, split: Split, splits_dir: Path) -> SubjectScores | None:
    """Score the subjects of a split; None if fewer than two are known.

    Raises:
        UnusableDataError: the splits have no table of assignments.
    """
    table = read_assignments(splits_dir).set_index("content_hash")["subject"].reindex(list(split.content_hashes))
    known = table.dropna()
    if known.nunique() < MIN_SUBJECTS:
        return None
    rows = pd.DataFrame({"subject": table, "group": table.fillna(table.index.to_series())})
    rows["is_correct"] = predictions.is_correct
    by_subject = rows.dropna(subset="subject").groupby("subject")["is_correct"].agg(["size", "mean"])
    groups = rows.groupby("group")["is_correct"].agg(["size", "sum"]).to_numpy(dtype=np.float64)
    accuracy = float(rows["is_correct"].mean())
    residuals = groups[:, 1] - accuracy * groups[:, 0]
    variance = float((residuals**2).sum()) / len(rows) ** 2 * len(groups) / (len(groups) - 1)
    # Of a few subjects, the variance itself is uncertain.
    variance *= (student_t.isf(_TAIL, len(groups) - 1) / norm.isf(_TAIL)) ** 2
    return SubjectScores(
        by_subject=[
            SubjectAccuracy(str(subject), int(num_images), float(accuracy))
            for subject, num_images, accuracy in by_subject.sort_values("mean", kind="stable").itertuples(name=None)
        ],
        mean_accuracy=float(by_subject["mean"].mean()),
        interval=proportion_interval(accuracy, len(rows) if variance else len(groups), variance),
    )
