from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.images import Pixels, decode_image
from emotion_assets.core.layout import DataPaths
from emotion_assets.demo.faces import draw_face
from emotion_assets.steps.splits import checks
from emotion_assets.steps.splits.assignment import SPLITS
from emotion_assets.steps.splits.checks import Finding, find_empty_images, find_leaking_images, leaking_pairs
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
    monkeypatch.setattr(checks, "MAX_EXACT_IMAGES", 1)
    approximate = find_leaking_images(paths)

    assert exact.is_error
    assert exact.problem.startswith("1 near-duplicates are in two splits. Materialize")
    assert not approximate.is_error
    assert approximate.problem == "1 near-duplicates are in two splits: among so many images the search misses some."


def measure(root: Path, pixels: Pixels) -> Finding:
    parts = np.array_split(pixels, 3)
    splits = {
        name: Split(part, np.zeros(len(part), dtype=np.int64), tuple(f"{i:064x}" for i in range(len(part))))
        for name, part in zip(SPLITS, parts, strict=True)
    }
    write_splits(root / "splits", "x", splits)
    return find_empty_images(DataPaths(root))


def noise(count: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64), dtype=np.uint8)


@pytest.mark.parametrize(("kind", "value"), [("black", 2), ("white", 253), ("flat", 100)])
@pytest.mark.parametrize(("count", "is_error"), [(3, False), (80, True)])
def test_a_wrong_conversion_is_found(tmp_path: Path, kind: str, value: int, count: int, *, is_error: bool) -> None:
    """A few of a hundred warn, most of them stop the run."""
    pixels = noise(100)
    pixels[:count] = value

    found = measure(tmp_path, pixels)

    assert found.rows[0][kind] == count
    assert kind in found.problem
    assert found.is_error == is_error


def test_equal_images_are_found(tmp_path: Path) -> None:
    """As when one file was written under many names, with a counter in its metadata."""
    pixels = noise(100)
    pixels[10:40] = pixels[0]

    found = measure(tmp_path, pixels)

    assert found.rows[0]["equal"] == 30
    assert "30 equal to another one" in found.problem
    assert not found.is_error


def test_ordinary_images_pass(tmp_path: Path) -> None:
    """One black image in a hundred is no problem."""
    pixels = noise(100)
    pixels[0] = 0

    assert not measure(tmp_path, pixels).problem


@pytest.mark.parametrize(("value", "kind"), [(7, "black"), (248, "white"), (9, "flat"), (246, "flat")])
@pytest.mark.parametrize(("count", "is_error"), [(50, False), (51, True)])
def test_an_image_counts_once(tmp_path: Path, value: int, kind: str, count: int, *, is_error: bool) -> None:
    """Nearly black, nearly white and flat ones are equal to each other as well; more than half stop the run."""
    pixels = noise(100)
    pixels[:count] = value

    found = measure(tmp_path, pixels)

    assert found.rows == [{"black": 0, "white": 0, "flat": 0, "equal": 0} | {kind: count}]
    assert found.is_error == is_error


def test_nearly_flat_images_are_flat(tmp_path: Path) -> None:
    """A compression leaves some noise."""
    pixels = noise(100)
    pixels[:20] = 100 + noise(20) // 64

    assert measure(tmp_path, pixels).rows[0]["flat"] == 20
