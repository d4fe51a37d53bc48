from __future__ import annotations

import logging
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.evaluation.label_audit import audit_labels, read_audit
from emotion_assets.steps.ingest.export import TABLE_NAME, read_catalogue
from emotion_assets.steps.splits.splits import read_manifest, read_split, write_splits
from emotion_assets.steps.training.config import TrainingConfig

CONFIG = TrainingConfig(
    epochs=20, width=12, dropout=0.1, batch_size=16, learning_rate=0.03, is_progressive=False, precision="32-true"
)


def test_too_few_groups_cannot_be_audited(drawn_root: Path, tmp_path: Path) -> None:
    """A recording of one person is one group of near-duplicates."""
    paths = DataPaths(tmp_path)
    paths.splits.symlink_to(drawn_root / "splits")
    paths.catalogue.mkdir()
    table = read_catalogue(drawn_root / "catalogue").assign(near_duplicate_group="one")
    table.to_parquet(paths.catalogue / TABLE_NAME)

    with pytest.raises(UnusableDataError, match="only 1 different images"):
        audit_labels(paths, CONFIG, num_folds=3)


def test_wrong_labels_are_found(drawn_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Most of twelve labels that were changed on purpose are among the most suspect, with their files."""
    caplog.set_level(logging.INFO)
    paths = DataPaths(tmp_path)
    shutil.copytree(drawn_root / "splits", paths.splits)
    paths.catalogue.mkdir()
    table = read_catalogue(drawn_root / "catalogue")
    pd.concat([table, table.assign(path="copy.jpg")]).to_parquet(paths.catalogue / TABLE_NAME)
    train, val = (read_split(paths.splits, name) for name in ("train", "val"))
    rng = np.random.default_rng(0)
    changed = rng.choice(len(train.pixels), 12, replace=False)
    class_indices = train.class_indices.copy()
    class_indices[changed] = (class_indices[changed] + rng.integers(1, 5, 12)) % 5
    fingerprint = read_manifest(paths.splits)["fingerprint"]
    write_splits(paths.splits, fingerprint, {"train": replace(train, class_indices=class_indices), "val": val})

    audit = audit_labels(paths, CONFIG, num_folds=3)

    issues = pd.read_csv(audit.report_dir / "issues.csv")
    wrong = {train.content_hashes[i] for i in changed}
    # By chance two or three of the twelve would be among thirty of 160.
    assert sum(content_hash in wrong for content_hash in issues["content_hash"][:30]) >= 5
    assert len(issues) < len(train.pixels) / 2
    assert audit.num_issues == len(issues)
    assert audit.fraction == len(issues) / len(train.pixels)
    assert audit.out_of_fold_accuracy > 0.3
    assert set(issues["label"]) <= set(EMOTIONS)
    assert (issues["label"] != issues["likely_label"]).all()
    assert issues["path"].str.endswith(".jpg; copy.jpg").all()
    assert (audit.report_dir / "gallery.webp").stat().st_size > 1000
    record = read_audit(paths, fingerprint)
    assert record is not None
    assert record["fraction"] == audit.fraction
    assert record["by_emotion"] == audit.by_emotion
    assert read_audit(paths, "another") is None
    assert [path.name for path in (paths.reports / "label_audit").iterdir()] == [audit.report_dir.name]
    assert "Fold 3 of 3" in caplog.text
    summary = audit.summary()
    assert asdict(summary)["values"]["num_issues"] == len(issues)
    assert summary.pages["issues"].is_file()
    assert summary.images["most_suspect_labels"]
