from __future__ import annotations

import io
import shutil
from pathlib import Path

from PIL import Image

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.ingest.catalogue import ingest_images
from emotion_assets.steps.ingest.export import read_catalogue
from emotion_assets.steps.ingest.previews import catalogue_previews

ALWAYS = {"class_balance", *(f"faces_{emotion}" for emotion in EMOTIONS)}


def draw_previews(raw: Path) -> dict[str, bytes]:
    ingest_images(DataPaths(raw.parent))
    return catalogue_previews(raw.parent / "catalogue", read_catalogue(raw.parent / "catalogue"), EMOTIONS)


def test_previews_show_the_classes(raw: Path) -> None:
    """Without near-duplicates and conflicts there are no sheets of them; all images are small."""
    images = draw_previews(raw)

    assert images.keys() == ALWAYS
    for content in images.values():
        assert len(content) < 100_000


def test_previews_show_near_duplicates_and_conflicts(raw: Path) -> None:
    """A recoded copy is among the near-duplicates, copies under another label are among the conflicts."""
    Image.open(raw / "Happy" / "6.jpg").save(raw / "Happy" / "again.png")
    shutil.copyfile(raw / "Sad" / "9.jpg", raw / "Angry" / "other label.jpg")
    Image.open(raw / "Fear" / "3.jpg").save(raw / "Sad" / "other label and format.png")

    images = draw_previews(raw)

    assert images.keys() == ALWAYS | {"near_duplicates", "label_conflicts"}
    heights = {name: Image.open(io.BytesIO(images[name])).height for name in ("near_duplicates", "label_conflicts")}
    assert set(heights.values()) == {66}
