from __future__ import annotations

import io
import shutil
from pathlib import Path

import pandas as pd
from PIL import Image

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.steps.ingest.catalogue import ingest_images
from emotion_assets.steps.ingest.export import TABLE_NAME
from emotion_assets.steps.ingest.previews import catalogue_previews

ALWAYS = {"class_balance", "sizes", *(f"faces_{emotion}" for emotion in EMOTIONS)}


def images_of(root: Path) -> dict[str, bytes]:
    ingest_images(root / "raw", root / "catalogue")
    return catalogue_previews(root / "catalogue", pd.read_parquet(root / "catalogue" / TABLE_NAME))


def test_a_clean_catalogue_shows_classes_and_charts(drawn_root: Path) -> None:
    """Without repetitions and conflicts there are no sheets of them; all images are small and readable."""
    images = images_of(drawn_root)

    assert set(images) - {"near_duplicates"} == ALWAYS
    for content in images.values():
        assert len(content) < 100_000
        Image.open(io.BytesIO(content)).load()


def test_repetitions_and_conflicts_get_sheets(drawn_root: Path, tmp_path: Path) -> None:
    """A recoded copy shows among the near-duplicates, a copy under another label among the conflicts."""
    root = Path(shutil.copytree(drawn_root, tmp_path / "root"))
    happy, sad, fear = (next((root / "raw" / name).rglob("*.jpg")) for name in ("Happy", "Sad", "Fear"))
    Image.open(happy).save(root / "raw" / "Happy" / "again.png")
    shutil.copyfile(sad, root / "raw" / "Angry" / "other label.jpg")
    Image.open(fear).save(root / "raw" / "Sad" / "other label and format.png")

    images = images_of(root)

    assert set(images) == ALWAYS | {"near_duplicates", "label_conflicts"}


def test_rejected_files_get_cards(drawn_root: Path, tmp_path: Path) -> None:
    """A broken file and a foreign folder show on a sheet of rejections; a name of any letters does no harm."""
    root = Path(shutil.copytree(drawn_root, tmp_path / "root"))
    (root / "raw" / "Sad" / "résumé 顔.jpg").write_bytes(b"no image")
    (root / "raw" / "Neutral").mkdir()

    images = images_of(root)

    sheet = Image.open(io.BytesIO(images["rejections"]))
    assert sheet.height == 42
    assert set(images) - {"near_duplicates"} == ALWAYS | {"rejections"}
