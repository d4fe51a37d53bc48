from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.steps.evaluation.label_audit import audit_labels, read_audit
from emotion_assets.steps.splits.splits import Split, read_manifest, read_split, write_splits
from emotion_assets.steps.training.config import TrainingConfig

CONFIG = TrainingConfig(epochs=20, width=12, dropout=0.1, batch_size=16, learning_rate=0.03, is_progressive=False)


def test_wrong_labels_are_found(drawn_root: Path, tmp_path: Path) -> None:
    """Of twelve labels that were changed on purpose most stand among the most suspect, with their files."""
    splits_dir = Path(shutil.copytree(drawn_root / "splits", tmp_path / "splits"))
    train, val = (read_split(splits_dir, name) for name in ("train", "val"))
    rng = np.random.default_rng(0)
    changed = rng.choice(len(train.pixels), 12, replace=False)
    class_indices = train.class_indices.copy()
    class_indices[changed] = (class_indices[changed] + rng.integers(1, 5, 12)) % 5
    fingerprint = read_manifest(splits_dir)["fingerprint"]
    write_splits(
        splits_dir, fingerprint, {"train": Split(train.pixels, class_indices, train.content_hashes), "val": val}
    )
    lines: list[str] = []

    audit, report_dir = audit_labels(
        splits_dir,
        drawn_root / "catalogue",
        tmp_path / "work",
        tmp_path / "reports",
        CONFIG,
        num_folds=3,
        log=lines.append,
    )

    issues = pd.read_csv(report_dir / "issues.csv")
    wrong = {train.content_hashes[i] for i in changed}
    # Chance would put two or three of the twelve among thirty of 160.
    assert sum(content_hash in wrong for content_hash in issues["content_hash"][:30]) >= 7
    assert len(issues) < len(train.pixels) / 2
    assert audit.num_issues == len(issues)
    assert audit.fraction == len(issues) / len(train.pixels)
    assert audit.out_of_fold_accuracy > 0.5
    assert set(issues["label"]) <= set(EMOTIONS)
    assert (issues["label"] != issues["likely_label"]).all()
    assert issues["path"].str.endswith(".jpg").all()
    assert (report_dir / "gallery.webp").stat().st_size > 1000
    assert read_audit(tmp_path / "reports", fingerprint) == {
        "schema_version": 1,
        **{name: getattr(audit, name) for name in audit.__slots__},
    }
    assert read_audit(tmp_path / "reports", "another") is None
    assert not (tmp_path / "work").exists()
    assert any(line.startswith("Fold 3 of 3") for line in lines)
