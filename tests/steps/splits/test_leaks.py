from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.images import decode_image
from emotion_assets.core.layout import DataPaths
from emotion_assets.demo.faces import draw_face
from emotion_assets.steps.splits import leaks
from emotion_assets.steps.splits.assignment import SPLITS
from emotion_assets.steps.splits.leaks import find_leaking_images, leaking_pairs
from emotion_assets.steps.splits.splits import Split, read_split, write_splits


def test_leaking_pairs_finds_a_planted_leak() -> None:
    """The check reports a mirrored copy across splits, and nothing else."""
    rng = np.random.default_rng(4)
    pixels = np.stack([decode_image(draw_face(EMOTIONS[i % 5], rng)).pixels for i in range(12)])
    names = tuple(f"{i:064}" for i in range(12))
    train = Split(pixels[:10], np.zeros(10, dtype=np.int64), names[:10])
    clean = Split(pixels[10:], np.zeros(2, dtype=np.int64), names[10:])
    leaky = Split(pixels[3:4, :, ::-1], np.zeros(1, dtype=np.int64), names[11:])

    assert leaking_pairs([train, clean]) == []
    assert leaking_pairs([train, leaky]) == [(names[3], names[11])]


def test_a_leak_among_very_many_images_is_a_warning(
    drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their near-duplicates are not all found, so another materialization would not help."""
    paths = DataPaths(Path(shutil.copytree(drawn_root, tmp_path / "root")))
    splits = {name: read_split(paths.splits, name) for name in SPLITS}
    planted = np.concatenate([splits["train"].pixels[:1, :, ::-1], splits["val"].pixels[1:]])
    write_splits(paths.splits, "leaky", splits | {"val": replace(splits["val"], pixels=planted)})

    exact = find_leaking_images(paths)
    monkeypatch.setattr(leaks, "MAX_EXACT_IMAGES", 1)
    approximate = find_leaking_images(paths)

    assert exact.is_error
    assert exact.problem.startswith("1 near-duplicates are in two splits. Materialize")
    assert not approximate.is_error
    assert approximate.problem == "1 near-duplicates are in two splits: among so many images the search misses some."
