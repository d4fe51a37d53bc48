from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.ingest.catalogue import ingest_images
from emotion_assets.steps.ingest.export import TABLE_NAME, read_catalogue, read_tables_digest


def test_export_marks_near_duplicates_and_label_conflicts(raw: Path) -> None:
    """A mirrored copy shares its group; a copy under another label is in conflict."""
    happy, fear, sad = raw / "Happy" / "6.jpg", raw / "Fear" / "3.jpg", raw / "Sad" / "9.jpg"
    Image.open(happy).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(raw / "Happy" / "mirrored.png")
    Image.open(sad).save(raw / "Angry" / "recoded.png")
    shutil.copyfile(fear, raw / "Sad" / "copy.jpg")

    ingest_images(DataPaths(raw.parent))
    table = read_catalogue(raw.parent / "catalogue").set_index("path")

    groups = table["near_duplicate_group"].dropna().to_dict()
    assert groups.keys() == {"Happy/6.jpg", "Happy/mirrored.png", "Sad/9.jpg", "Angry/recoded.png"}
    assert groups["Happy/6.jpg"] == groups["Happy/mirrored.png"] != groups["Sad/9.jpg"] == groups["Angry/recoded.png"]
    conflicting = set(table.index[table["has_label_conflict"]])
    assert conflicting == {"Fear/3.jpg", "Sad/copy.jpg", "Sad/9.jpg", "Angry/recoded.png"}
    assert "split" not in table


def test_the_digest_of_subjects_needs_a_whole_table(raw: Path) -> None:
    """A missing or cut catalogue has none."""
    ingest_images(DataPaths(raw.parent))
    path = raw.parent / "catalogue" / TABLE_NAME
    assert read_tables_digest(path) == ""

    path.write_bytes(path.read_bytes()[:-5])
    assert read_tables_digest(path) is None
    assert read_tables_digest(path.with_name("none")) is None
