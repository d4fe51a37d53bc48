from __future__ import annotations

import shutil
from pathlib import Path

from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.ingest.catalogue import ingest_images


def test_summary_has_counts_rejections_and_previews(raw: Path) -> None:
    """Everything that people see of an ingest."""
    (raw / "Happy" / "text.jpg").write_text("not an image")
    shutil.copyfile(raw / "Sad" / "9.jpg", raw / "Angry" / "copy.jpg")

    report = ingest_images(DataPaths(raw.parent))
    summary = report.summary()

    assert summary.values["fingerprint"] == report.fingerprint
    names = ("num_angry", "num_happy", "num_files", "num_new", "num_rejected", "num_label_conflicts")
    assert [summary.values[name] for name in names] == [4, 3, 17, 17, 1, 2]
    assert [(row["path"], row["code"]) for row in summary.tables["rejected"]] == [
        ("Happy/text.jpg", "unsupported_format")
    ]
    assert {"class_balance", "faces_angry", "label_conflicts"} <= summary.images.keys()
    assert summary.files["catalogue"].exists()
