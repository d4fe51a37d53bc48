from __future__ import annotations

import shutil
from pathlib import Path

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.evaluation.external import read_external


def test_images_in_emotion_folders_are_labelled(drawn_root: Path, tmp_path: Path) -> None:
    """Other folders, links and unreadable files are skipped; without any folder there are no images."""
    paths = DataPaths(tmp_path)
    assert len(read_external(paths, EMOTIONS).pixels) == 0
    shutil.copytree(drawn_root / "raw" / "Sad", paths.external / "sadness")
    shutil.copytree(drawn_root / "raw" / "Happy", paths.external / "unsorted")
    (paths.external / "Happy").symlink_to(drawn_root / "raw" / "Happy")
    (paths.external / "sadness" / "broken.jpg").write_bytes(b"not an image")

    split = read_external(paths, EMOTIONS)

    assert split.pixels.shape == (40, 64, 64)
    assert set(split.class_indices.tolist()) == {3}
    assert split.content_hashes[0].startswith("sadness/")
