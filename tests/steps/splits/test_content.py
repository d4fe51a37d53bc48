from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emotion_assets.core.images import Pixels
from emotion_assets.steps.splits.assignment import SPLITS
from emotion_assets.steps.splits.content import ImageContent, measure_content
from emotion_assets.steps.splits.splits import Split, write_splits


def measure(root: Path, pixels: Pixels) -> ImageContent:
    parts = np.array_split(pixels, 3)
    splits = {
        name: Split(part, np.zeros(len(part), dtype=np.int64), tuple(f"{i:064x}" for i in range(len(part))))
        for name, part in zip(SPLITS, parts, strict=True)
    }
    write_splits(root, "x", splits)
    return measure_content(root)


def noise(count: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64), dtype=np.uint8)


@pytest.mark.parametrize(
    ("kind", "value", "name"),
    [("black", 2, "num_black"), ("white", 253, "num_white"), ("flat", 100, "num_flat")],
)
@pytest.mark.parametrize(("count", "is_error"), [(3, False), (80, True)])
def test_a_wrong_conversion_is_found(
    tmp_path: Path, kind: str, value: int, name: str, count: int, *, is_error: bool
) -> None:
    """A few of a hundred warn, most of them stop the run."""
    pixels = noise(100)
    pixels[:count] = value

    content = measure(tmp_path, pixels)

    assert getattr(content, name) == count
    assert kind in content.problem
    assert content.is_error == is_error


def test_equal_images_are_found(tmp_path: Path) -> None:
    """As when one file was written under many names, with a counter in its metadata."""
    pixels = noise(100)
    pixels[10:40] = pixels[0]

    content = measure(tmp_path, pixels)

    assert content.num_equal == 30
    assert "30 equal to another one" in content.problem
    assert not content.is_error


def test_ordinary_images_pass(tmp_path: Path) -> None:
    """One black image in a hundred is no problem."""
    pixels = noise(100)
    pixels[0] = 0

    assert not measure(tmp_path, pixels).problem
