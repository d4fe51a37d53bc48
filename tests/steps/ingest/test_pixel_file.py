from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.images import Pixels
from emotion_assets.steps.ingest.pixel_file import PixelFile


def images(count: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64)).astype(np.uint8)


def written(path: Path, pixels: Pixels, position: int = 0) -> PixelFile:
    file = PixelFile(path)
    file.write(position, [image.tobytes() for image in pixels])
    return file


def checksums(pixels: Pixels) -> list[int]:
    return [zlib.crc32(image.data) for image in pixels]


def test_read_returns_what_was_written_in_any_order(tmp_path: Path) -> None:
    """Positions decide, not the order of writing."""
    pixels = images(5)
    file = written(tmp_path / "pixels.bin", pixels[:3])
    file.write(3, [image.tobytes() for image in pixels[3:]])
    order = np.array([4, 0, 3])

    assert np.array_equal(file.read(order, checksums(pixels[order])), pixels[order])


def test_read_of_nothing_needs_no_file(tmp_path: Path) -> None:
    """An empty set of images is empty, also before anything was written."""
    assert PixelFile(tmp_path / "none.bin").read(np.array([], dtype=np.int64), []).shape == (0, 64, 64)


def test_uncommitted_images_are_overwritten(tmp_path: Path) -> None:
    """Images beyond the last committed position give way to the next ones."""
    pixels = images(4)
    file = written(tmp_path / "pixels.bin", images(3, seed=1))
    file.write(1, [image.tobytes() for image in pixels])
    positions = np.arange(1, 5)

    assert np.array_equal(file.read(positions, checksums(pixels)), pixels)


def test_a_part_of_an_image_at_the_end_does_not_count(tmp_path: Path) -> None:
    """A write that a full disk cut off."""
    pixels, path = images(3), tmp_path / "pixels.bin"
    file = written(path, pixels)
    with path.open("ab") as stream:
        stream.write(bytes(100))

    assert np.array_equal(file.read(np.arange(3), checksums(pixels)), pixels)


@pytest.mark.parametrize("damage", ["altered", "cut", "missing"])
def test_a_damaged_file_is_rejected(tmp_path: Path, damage: str) -> None:
    """One altered byte, a cut file or none at all is an error that says how to rebuild it."""
    path = tmp_path / "pixels.bin"
    pixels = images(3)
    file = written(path, pixels)
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(bytes(data) if damage == "altered" else bytes(data[: 2 * 4096]))
    if damage == "missing":
        path.unlink()

    with pytest.raises(UnusableDataError, match="rebuilt from raw/"):
        file.read(np.arange(3), checksums(pixels))
