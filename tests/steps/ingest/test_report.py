from __future__ import annotations

import shutil
from pathlib import Path

from emotion_assets.core.layout import DataPaths
from emotion_assets.demo.faces import draw_frame
from emotion_assets.steps.ingest.catalogue import ingest_images
from emotion_assets.steps.ingest.report import count_key


def test_summary_has_counts_rejections_and_previews(raw: Path) -> None:
    """Everything that people see of an ingest; a copy of an image is no other image."""
    (raw / "Happy" / "text.jpg").write_text("not an image")
    shutil.copyfile(raw / "Sad" / "9.jpg", raw / "Angry" / "copy.jpg")
    shutil.copyfile(next((raw / "Happy").iterdir()), raw / "Happy" / "copy.jpg")

    report = ingest_images(DataPaths(raw.parent))
    summary = report.summary()

    assert summary.values["fingerprint"] == report.fingerprint
    names = ("images/angry", "images/happy", "num_files", "num_new", "num_rejected", "num_label_conflicts")
    assert [summary.values[name] for name in names] == [4, 3, 18, 18, 1, 2]
    assert [(row["path"], row["reason_code"]) for row in summary.tables["rejected"]] == [
        ("Happy/text.jpg", "unsupported_format")
    ]
    assert [row["path"] for row in summary.tables["label_conflicts"]] == ["Angry/copy.jpg", "Sad/9.jpg"]
    assert "nan" not in str(summary.tables["label_conflicts"])
    assert {"class_balance", "faces_angry", "label_conflicts"} <= summary.images.keys()
    assert summary.files["catalogue"].exists()


def test_a_label_that_is_set_aside_counts_for_no_class(raw: Path) -> None:
    """The image is one of the class that it was delivered with."""
    folder = raw / "Angry" / "feedback"
    folder.mkdir()
    shutil.copyfile(next((raw / "Sad").iterdir()), folder / "1.jpg")

    values = ingest_images(DataPaths(raw.parent)).summary().values

    assert (values["images/angry"], values["images/sad"], values["num_labels_set_aside"]) == (3, 3, 1)


def test_classes_may_be_called_like_other_numbers(tmp_path: Path) -> None:
    """A class `new` does not hide how many files are new."""
    paths = DataPaths(tmp_path)
    paths.classes.write_text("- new\n- happy\n")
    for number in range(3):
        path = paths.raw / "New" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw_frame("new", number, 0))

    ingest_images(paths)
    values = ingest_images(paths).summary().values

    assert (values["num_new"], values[count_key("new")], values[count_key("happy")]) == (0, 3, 0)
