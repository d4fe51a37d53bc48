"""Which training labels are likely wrong, by confident learning, as a list that a person can act on.

The train split is dealt into folds that keep near-duplicates together; a network trained on the others
answers for each fold, so no answer comes from a network that saw the label. A label is suspect when the
answers contradict it more than the classes' usual confusion explains (Northcutt et al. 2021, "Confident
learning: estimating uncertainty in dataset labels"; the library is cleanlab).
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import softmax
from sklearn.model_selection import StratifiedGroupKFold

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.contact_sheet import contact_sheet
from emotion_assets.core.files import write_atomically, write_json
from emotion_assets.steps.ingest.export import TABLE_NAME
from emotion_assets.steps.splits.splits import Split, read_manifest, read_split, write_splits
from emotion_assets.steps.training.calibration import predict_logits
from emotion_assets.steps.training.config import TrainingConfig
from emotion_assets.steps.training.train import train

ISSUES_NAME: Final = "issues.csv"
GALLERY_NAME: Final = "gallery.webp"
AUDIT_NAME: Final = "audit.json"
_NUM_SHOWN: Final = 96


@dataclass(frozen=True, slots=True)
class LabelAudit:
    """What an audit found; `share` is a fraction of the audited faces in 0..1."""

    data_fingerprint: str
    num_images: int
    num_issues: int
    fraction: float
    by_emotion: dict[str, float]
    """Fraction of likely wrong labels among those of each emotion."""
    out_of_fold_accuracy: float


def audit_labels(
    splits_dir: Path,
    catalogue_dir: Path,
    work_dir: Path,
    reports_dir: Path,
    config: TrainingConfig,
    *,
    num_folds: int = 3,
    code_version: str = "",
    log: Callable[[str], None] = lambda _: None,
) -> tuple[LabelAudit, Path]:
    """Find likely wrong labels of the train split.

    An audit that was interrupted continues from its last epoch.

    Args:
        splits_dir: written by `make_splits`.
        catalogue_dir: its table names the files and the groups of near-duplicates.
        work_dir: for the folds' arrays and checkpoints, emptied at the end.
        reports_dir: gets `label_audit/<data>/`: `issues.csv` (the most suspect first), `gallery.webp` (the
            same order) and `audit.json`.
        config: of each fold's training.
        num_folds: networks to train; more make each a little better.
        code_version: a checkpoint of other code is not used.
        log: gets the lines of every training.

    Returns:
        The audit and its folder.

    Raises:
        UnusableDataError: there are no splits.
    """
    fingerprint = str(read_manifest(splits_dir)["fingerprint"])
    split = read_split(splits_dir, "train")
    table = pd.read_parquet(catalogue_dir / TABLE_NAME, columns=["path", "content_hash", "near_duplicate_group"])
    table = table.drop_duplicates("content_hash").set_index("content_hash").reindex(list(split.content_hashes))
    probabilities = _out_of_fold(split, table, fingerprint, work_dir, config, num_folds, code_version, log)
    issues = _suspects(split, table, probabilities)
    report_dir = reports_dir / "label_audit" / fingerprint[:12]
    shown = issues.index[:_NUM_SHOWN].to_numpy()
    write_atomically(report_dir / GALLERY_NAME, contact_sheet(split.pixels[shown]))
    buffer = io.StringIO()
    issues.to_csv(buffer, index=False)
    write_atomically(report_dir / ISSUES_NAME, buffer.getvalue())
    total = np.bincount(split.class_indices, minlength=len(EMOTIONS))
    audit = LabelAudit(
        data_fingerprint=fingerprint,
        num_images=len(split.pixels),
        num_issues=len(issues),
        fraction=len(issues) / len(split.pixels),
        by_emotion={
            emotion: float((issues["label"] == emotion).sum() / max(1, total[index]))
            for index, emotion in enumerate(EMOTIONS)
        },
        out_of_fold_accuracy=float((probabilities.argmax(axis=1) == split.class_indices).mean()),
    )
    write_json(report_dir / AUDIT_NAME, {"schema_version": 1, **dataclasses.asdict(audit)})
    shutil.rmtree(work_dir, ignore_errors=True)
    return audit, report_dir


def read_audit(reports_dir: Path, data_fingerprint: str) -> dict[str, Any] | None:
    """Return the record of the audit of exactly these splits; None if there was none."""
    path = reports_dir / "label_audit" / data_fingerprint[:12] / AUDIT_NAME
    if not path.exists():
        return None
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def _out_of_fold(
    split: Split,
    table: pd.DataFrame,
    fingerprint: str,
    work_dir: Path,
    config: TrainingConfig,
    num_folds: int,
    code_version: str,
    log: Callable[[str], None],
) -> npt.NDArray[np.float64]:
    """Return probabilities (image, emotion), each image's by a network that never saw it."""
    own_names = pd.Series(split.content_hashes, index=table.index)
    groups = table["near_duplicate_group"].fillna(own_names).to_numpy()
    folds = StratifiedGroupKFold(num_folds, shuffle=True, random_state=config.seed)
    probabilities = np.empty((len(split.pixels), len(EMOTIONS)))
    for number, (rest, held) in enumerate(folds.split(split.pixels, split.class_indices, groups)):
        log(f"Fold {number + 1} of {num_folds}: training on {len(rest):,} faces, answering for {len(held):,}")
        fold_dir = work_dir / f"fold{number}"
        name = hashlib.sha256(f"{fingerprint} {number}/{num_folds} {config.seed}".encode()).hexdigest()
        write_splits(fold_dir, name, {"train": _part(split, rest), "val": _part(split, held)})
        trained = train(fold_dir, work_dir / "runs", config, code_version=code_version, log=log)
        logits = predict_logits(trained.network, _part(split, held)).astype(np.float64)
        probabilities[held] = softmax(logits / trained.temperature, axis=1)
    return probabilities


def _part(split: Split, positions: npt.NDArray[np.int64]) -> Split:
    hashes = tuple(split.content_hashes[i] for i in positions)
    return Split(split.pixels[positions], split.class_indices[positions], hashes)


def _suspects(split: Split, table: pd.DataFrame, probabilities: npt.NDArray[np.float64]) -> pd.DataFrame:
    """Return a row for each suspect label, by its position in the split, the most suspect first."""
    from cleanlab.filter import find_label_issues

    chosen = np.asarray(
        find_label_issues(split.class_indices, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1),
        dtype=np.int64,
    )
    likely = probabilities[chosen].argmax(axis=1)
    return pd.DataFrame(
        {
            "path": table["path"].to_numpy()[chosen],
            "label": [EMOTIONS[i] for i in split.class_indices[chosen]],
            "likely_label": [EMOTIONS[i] for i in likely],
            "probability_of_label": probabilities[chosen, split.class_indices[chosen]].round(4),
            "probability_of_likely_label": probabilities[chosen, likely].round(4),
            "content_hash": [split.content_hashes[i] for i in chosen],
        },
        index=chosen,
    )
