"""Find likely mislabelled training images by confident learning.

The train split is divided into folds that keep near-duplicates together. The network that predicts a fold was trained
on the others, so it never saw the labels that it is compared with. A label is an issue when the predictions contradict
it more than the usual confusion of the classes explains (Northcutt et al. 2021, "Confident learning: estimating
uncertainty in dataset labels"; implemented by cleanlab).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import softmax
from sklearn.model_selection import StratifiedGroupKFold

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.files import write_atomically, write_json
from emotion_assets.core.layout import DataPaths
from emotion_assets.core.summary import Summary
from emotion_assets.steps.ingest.export import read_catalogue, read_contents
from emotion_assets.steps.report_images import contact_sheet
from emotion_assets.steps.splits.splits import Split, read_manifest, read_split, write_splits
from emotion_assets.steps.training.calibration import predict_logits
from emotion_assets.steps.training.config import TrainingConfig
from emotion_assets.steps.training.train import train

ISSUES_NAME: Final = "issues.csv"
GALLERY_NAME: Final = "gallery.webp"
AUDIT_NAME: Final = "audit.json"
_FOLDER_NAME: Final = "label_audit"
_NUM_SHOWN: Final = 96

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelAudit:
    """The label issues of a train split; fractions are in 0..1."""

    data_fingerprint: str
    num_images: int
    num_issues: int
    fraction: float
    """Label issues among all audited images."""
    by_emotion: dict[str, float]
    """The same among the images of each label."""
    out_of_fold_accuracy: float
    report_dir: Path
    """Holds `issues.csv` (the most suspect label first), `gallery.webp` (in the same order) and `audit.json`."""

    def summary(self) -> Summary:
        """Return the counts, the most suspect images and the link to the list."""
        return Summary(
            values={
                "num_issues": self.num_issues,
                "num_images": self.num_images,
                "fraction_of_labels": self.fraction,
                "out_of_fold_accuracy": self.out_of_fold_accuracy,
            },
            tables={
                "by_emotion": [{"emotion": name, "fraction": fraction} for name, fraction in self.by_emotion.items()]
            },
            images={"most_suspect_labels": (self.report_dir / GALLERY_NAME).read_bytes()},
            pages={"issues": self.report_dir / ISSUES_NAME},
        )


def audit_labels(paths: DataPaths, config: TrainingConfig, *, num_folds: int = 3, code_version: str = "") -> LabelAudit:
    """Find the train split's likely wrong labels with one network per fold.

    An interrupted audit resumes from its last epoch if `code_version` is the same.

    Raises:
        UnusableDataError: there are no splits, or fewer different images than folds.
    """
    fingerprint = str(read_manifest(paths.splits)["fingerprint"])
    split = read_split(paths.splits, "train")
    table = read_contents(paths.catalogue, ["near_duplicate_group"]).reindex(list(split.content_hashes))
    # Every copy is listed: to move only one would make a label conflict.
    files = read_catalogue(paths.catalogue).groupby("content_hash")["path"].agg("; ".join)
    table["path"] = files.reindex(table.index)
    folds = _split_folds(split, table, num_folds, config.seed)
    work_dir = paths.reports / _FOLDER_NAME / ".work"
    probabilities = _predict_out_of_fold(split, folds, fingerprint, work_dir, config, code_version)
    issues = _find_issues(split, table, probabilities)
    counts = np.bincount(split.class_indices, minlength=len(split.emotions))
    audit = LabelAudit(
        data_fingerprint=fingerprint,
        num_images=len(split.pixels),
        num_issues=len(issues),
        fraction=len(issues) / len(split.pixels),
        by_emotion={
            emotion: float((issues["label"] == emotion).sum() / max(1, counts[index]))
            for index, emotion in enumerate(split.emotions)
        },
        out_of_fold_accuracy=float((probabilities.argmax(axis=1) == split.class_indices).mean()),
        report_dir=_report_dir(paths, fingerprint),
    )
    shown = issues.index[:_NUM_SHOWN].to_numpy()
    write_atomically(audit.report_dir / GALLERY_NAME, contact_sheet(split.pixels[shown]))
    write_atomically(audit.report_dir / ISSUES_NAME, issues.to_csv(index=False))
    record = {name: value for name, value in dataclasses.asdict(audit).items() if name != "report_dir"}
    write_json(audit.report_dir / AUDIT_NAME, {"schema_version": 1, **record})
    shutil.rmtree(work_dir, ignore_errors=True)
    return audit


def read_audit(paths: DataPaths, data_fingerprint: str) -> dict[str, Any] | None:
    """Return `audit.json` of the audit of exactly these splits; None if there was none."""
    path = _report_dir(paths, data_fingerprint) / AUDIT_NAME
    if not path.exists():
        return None
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def _report_dir(paths: DataPaths, data_fingerprint: str) -> Path:
    return paths.reports / _FOLDER_NAME / data_fingerprint[:12]


_Fold = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Positions of the images to train on, and of those to predict."""


def _split_folds(split: Split, table: pd.DataFrame, num_folds: int, seed: int) -> list[_Fold]:
    """Return stratified folds that never separate near-duplicates."""
    groups = table["near_duplicate_group"].fillna(pd.Series(split.content_hashes, index=table.index)).to_numpy()
    num_groups = len(set(groups))
    if min(num_groups, np.bincount(split.class_indices).max()) < num_folds:
        raise UnusableDataError(
            f"The labels cannot be audited in {num_folds} folds: near-duplicates taken together, the train split has "
            f"only {num_groups} different images, or too few of each class. Add images of other people."
        )
    folds = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    return list(folds.split(split.pixels, split.class_indices, groups))


def _predict_out_of_fold(
    split: Split, folds: list[_Fold], fingerprint: str, work_dir: Path, config: TrainingConfig, code_version: str
) -> npt.NDArray[np.float64]:
    """Return probabilities (image, emotion), each image's by the network that never saw it."""
    probabilities = np.empty((len(split.pixels), len(split.emotions)))
    for number, (fitted, held_out) in enumerate(folds):
        _logger.info(
            "Fold %d of %d: training on %d images, predicting %d", number + 1, len(folds), len(fitted), len(held_out)
        )
        fold_dir, validation = work_dir / f"fold{number}", _subset(split, held_out)
        name = hashlib.sha256(f"{fingerprint} {number}/{len(folds)} {config.seed}".encode()).hexdigest()
        write_splits(fold_dir, name, {"train": _subset(split, fitted), "val": validation})
        trained = train(fold_dir, work_dir / "runs", config, code_version=code_version)
        logits = predict_logits(trained.network, validation).astype(np.float64)
        probabilities[held_out] = softmax(logits / trained.temperature, axis=1)
    return probabilities


def _subset(split: Split, positions: npt.NDArray[np.int64]) -> Split:
    hashes = tuple(split.content_hashes[i] for i in positions)
    return Split(split.pixels[positions], split.class_indices[positions], hashes, split.emotions)


def _find_issues(split: Split, table: pd.DataFrame, probabilities: npt.NDArray[np.float64]) -> pd.DataFrame:
    """Return a row for each label issue, indexed by its position in the split, the most suspect first."""
    from cleanlab.filter import find_label_issues

    chosen = np.asarray(
        find_label_issues(split.class_indices, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1),
        dtype=np.int64,
    )
    likely = probabilities[chosen].argmax(axis=1)
    return pd.DataFrame(
        {
            "path": table["path"].to_numpy()[chosen],
            "label": [split.emotions[i] for i in split.class_indices[chosen]],
            "likely_label": [split.emotions[i] for i in likely],
            "probability_of_label": probabilities[chosen, split.class_indices[chosen]].round(4),
            "probability_of_likely_label": probabilities[chosen, likely].round(4),
            "content_hash": [split.content_hashes[i] for i in chosen],
        },
        index=chosen,
    )
