from __future__ import annotations

import io
import shutil
from pathlib import Path

import pandas as pd
from PIL import Image

from emotion_assets.core.emotions import EMOTIONS
from emotion_assets.steps.data.catalogue import take_stock
from emotion_assets.steps.data.show import catalogue_pictures
from emotion_assets.steps.data.table import TABLE_NAME

ALWAYS = {"class_balance", "sizes", *(f"faces_{emotion}" for emotion in EMOTIONS)}


def pictures_of(root: Path) -> dict[str, bytes]:
    take_stock(root / "raw", root / "catalogue")
    return catalogue_pictures(root / "catalogue", pd.read_parquet(root / "catalogue" / TABLE_NAME))


def test_a_clean_catalogue_shows_classes_and_charts(drawn_root: Path) -> None:
    """Without repetitions and conflicts there are no sheets of them; all pictures are small and readable."""
    pictures = pictures_of(drawn_root)

    assert set(pictures) - {"near_duplicates"} == ALWAYS
    for content in pictures.values():
        assert len(content) < 100_000
        Image.open(io.BytesIO(content)).load()


def test_repetitions_and_conflicts_get_sheets(drawn_root: Path, tmp_path: Path) -> None:
    """A recoded copy shows among the near-duplicates, a copy under another label among the conflicts."""
    root = Path(shutil.copytree(drawn_root, tmp_path / "root"))
    happy, sad, fear = (next((root / "raw" / name).rglob("*.jpg")) for name in ("Happy", "Sad", "Fear"))
    Image.open(happy).save(root / "raw" / "Happy" / "again.png")
    shutil.copyfile(sad, root / "raw" / "Angry" / "other label.jpg")
    Image.open(fear).save(root / "raw" / "Sad" / "other label and format.png")

    pictures = pictures_of(root)

    assert set(pictures) == ALWAYS | {"near_duplicates", "label_conflicts"}


def test_refused_files_get_cards(drawn_root: Path, tmp_path: Path) -> None:
    """A broken file and a foreign folder show on a sheet of refusals; a name of any letters does no harm."""
    root = Path(shutil.copytree(drawn_root, tmp_path / "root"))
    (root / "raw" / "Sad" / "résumé 顔.jpg").write_bytes(b"no picture")
    (root / "raw" / "Neutral").mkdir()

    pictures = pictures_of(root)

    sheet = Image.open(io.BytesIO(pictures["refusals"]))
    assert sheet.height == 42
    assert set(pictures) - {"near_duplicates"} == ALWAYS | {"refusals"}
