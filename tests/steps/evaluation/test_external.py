from __future__ import annotations

import shutil
from pathlib import Path

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.evaluation.external import read_external
from emotion_assets.steps.splits.splits import read_split


def test_images_in_emotion_folders_are_labelled(drawn_root: Path, bundle_dir: Path, tmp_path: Path) -> None:
    """Other folders, links, unreadable files and training images are skipped; without a folder there are no images."""
    paths = DataPaths(tmp_path)
    assert len(read_external(paths, EMOTIONS, bundle_dir).pixels) == 0
    shutil.copytree(drawn_root / "raw" / "Sad", paths.external / "sadness")
    shutil.copytree(drawn_root / "raw" / "Happy", paths.external / "unsorted")
    (paths.external / "Happy").symlink_to(drawn_root / "raw" / "Happy")
    (paths.external / "sadness" / "broken.jpg").write_bytes(b"not an image")

    trained_on = read_split(drawn_root / "splits", "train")
    num_trained_on = int((trained_on.class_indices == 3).sum())

    split = read_external(paths, EMOTIONS, bundle_dir)

    assert num_trained_on > 30
    assert split.pixels.shape == (40 - num_trained_on, 64, 64)
    assert set(split.class_indices.tolist()) == {3}
    assert split.content_hashes[0].startswith("sadness/")
