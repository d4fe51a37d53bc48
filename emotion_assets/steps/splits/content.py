"""Check that the images of the splits show something: a wrong conversion decodes to black, white or flat squares."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from emotion_assets.core.images import IMAGE_SIZE_PX
from emotion_assets.steps.splits.assignment import SPLITS
from emotion_assets.steps.splits.splits import read_split

_MIN_DEVIATION: Final = 3.0
"""Standard deviation of the gray values, 0..255, below which an image is flat."""
_DARKEST_MEAN: Final = 8.0
_BRIGHTEST_MEAN: Final = 247.0
_WARNING_FRACTION: Final = 0.01
_ERROR_FRACTION: Final = 0.5
_CHUNK_IMAGES: Final = 1024


@dataclass(frozen=True, slots=True)
class ImageContent:
    """Numbers of images without usable content; an image counts once."""

    num_images: int
    num_black: int
    num_white: int
    num_flat: int
    num_equal: int
    """Beyond the first of equal ones."""

    @property
    def fraction(self) -> float:
        """The fraction of all images."""
        found = self.num_black + self.num_white + self.num_flat + self.num_equal
        return found / max(1, self.num_images)

    @property
    def is_error(self) -> bool:
        """Whether most images are without content, so that nothing should be trained on them."""
        return self.fraction > _ERROR_FRACTION

    @property
    def problem(self) -> str:
        """What is wrong, or an empty string."""
        if self.fraction <= _WARNING_FRACTION:
            return ""
        return (
            f"Of {self.num_images:,} images, {self.num_black:,} are nearly black, {self.num_white:,} nearly white, "
            f"{self.num_flat:,} flat and {self.num_equal:,} equal to another one. Look at train_faces, and at how the "
            "files were written."
        )


def measure_content(splits_dir: Path) -> ImageContent:
    """Count the images of all splits that are black, white, flat, or equal to another one.

    Raises:
        UnusableDataError: the splits are missing or damaged.
    """
    means, deviations = [], []
    digests: list[bytes] = []
    for name in SPLITS:
        pixels = read_split(splits_dir, name).pixels
        for start in range(0, len(pixels), _CHUNK_IMAGES):
            flat = pixels[start : start + _CHUNK_IMAGES].reshape(-1, IMAGE_SIZE_PX**2)
            means.append(flat.mean(axis=1))
            deviations.append(flat.std(axis=1))
            digests.extend(hashlib.sha256(row.tobytes()).digest() for row in flat)
    mean = np.concatenate(means)
    is_black, is_white = mean < _DARKEST_MEAN, mean > _BRIGHTEST_MEAN
    is_flat = (np.concatenate(deviations) < _MIN_DEVIATION) & ~is_black & ~is_white
    others = [digests[index] for index in np.flatnonzero(~(is_black | is_white | is_flat))]
    num_equal = len(others) - len(set(others))
    return ImageContent(len(mean), int(is_black.sum()), int(is_white.sum()), int(is_flat.sum()), num_equal)
