"""Thirteen statistics of an image's appearance.

They are computed from the 64×64 gray pixels that the network sees, so that training images and served ones can be
compared whatever their camera, size or format.
"""

from __future__ import annotations

import functools
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from emotion_assets.core.images import Pixels

STATISTICS: Final = (
    "brightness",
    "contrast",
    "sharpness",
    "detail",
    "entropy",
    "edge_fraction",
    "noise",
    "clipped_fraction",
    "top_minus_bottom",
    "mirror_symmetry",
    "center_minus_border",
    "horizontal_gradient_fraction",
    "eyes_minus_cheeks",
)
"""Of gray values 0..1:

- brightness, contrast: mean and standard deviation of the gray values;
- sharpness: mean gradient magnitude; detail: log of the Laplacian's variance;
- entropy: bits of the histogram over 32 gray bins;
- edge_fraction: fraction of pixels whose gradient exceeds 0.1; clipped_fraction: fraction at 0 or 255;
- noise: standard deviation of the noise by Immerkær (1996), "Fast noise variance estimation";
- top_minus_bottom, center_minus_border: differences of mean brightness;
- mirror_symmetry: correlation of an image with its mirror image;
- horizontal_gradient_fraction: fraction of the gradient energy along rows;
- eyes_minus_cheeks: difference of mean brightness in standard deviations, negative for most faces, as Viola
  and Jones (2001, "Rapid object detection using a boosted cascade of simple features") found first.
"""

# Where a face crop has its eyes and cheeks, in fractions of the side.
_EYES_ROWS: Final = (0.28, 0.47)
_CHEEKS_ROWS: Final = (0.5, 0.66)
_FACE_COLUMNS: Final = (0.16, 0.84)
_EDGE_GRADIENT: Final = 0.1
_GRAY_BIN_BITS: Final = 5
_TINY: Final = 1e-6
_FLAT: Final = np.float32(1 / 255)
_WHITE: Final = 255
_CENTER_FRACTION: Final = 0.25
_CHUNK: Final = 512
_IMMERKAER: Final = np.float32(np.sqrt(np.pi / 2) / 6)

Floats = npt.NDArray[np.float32]


class _Weights(NamedTuple):
    """Weights that turn the values of all pixels into means, for images of one size."""

    regions: Floats
    """float32 (region, pixel), 0 or 1: the whole, top, bottom, center, eyes, cheeks."""
    sizes: Floats
    """float32 (region, 1): the number of pixels of each region."""
    inner: Floats
    """float32 (pixel from the first inner one to the last,): the pixels with four neighbors."""


def image_statistics(pixels: Pixels) -> dict[str, Floats]:
    """Return float32 (image,) for each name in `STATISTICS`, of images uint8 (image, row, column)."""
    count, height, width = pixels.shape
    weights = _weights(height, width)
    # With flat rows a neighbor is the same array shifted by one or by a row; `inner` leaves out what wraps around.
    # For one image, numpy's calls cost more than their arithmetic, and this takes half as many.
    flat = pixels.reshape(count, -1)
    levels = flat.astype(np.float32)
    # Sums of integers below 2^24, so exact in any order.
    mean, top, bottom, center, eyes, cheeks = weights.regions @ levels.T / (weights.sizes * np.float32(255))
    gray = levels / np.float32(255)
    centered = gray - mean[:, None]
    variance = np.vecdot(centered, centered) / np.float32(height * width)
    by_row = centered.reshape(pixels.shape)
    mirrored = _mean((by_row * by_row[:, :, ::-1]).reshape(count, -1))
    contrast = np.sqrt(variance)

    first, last = width + 1, height * width - width - 1
    here = gray[:, first:last]
    before, after = gray[:, first - 1 : last - 1], gray[:, first + 1 : last + 1]
    above, below = gray[:, first - width : last - width], gray[:, first + width : last + width]
    row_squares = np.square(after - before)
    column_squares = np.square(below - above)
    row_energy, column_energy = row_squares @ weights.inner, column_squares @ weights.inner
    steps = np.sqrt(row_squares + column_squares)  # twice the gradient
    laplacian = before + after + above + below - 4 * here
    roughness = np.square(laplacian) @ weights.inner - (laplacian @ weights.inner) ** 2

    statistics = {
        "brightness": mean,
        "contrast": contrast,
        "sharpness": steps @ weights.inner / 2,
        "detail": np.log(np.maximum(roughness, 0) + _TINY),
        "entropy": _entropy(flat),
        "edge_fraction": (steps > 2 * _EDGE_GRADIENT).astype(np.float32) @ weights.inner,
        "noise": _noise(gray, width) @ weights.inner,
        # 0 minus 1 wraps to 255, so one comparison finds both ends.
        "clipped_fraction": _mean(flat - np.uint8(1) >= _WHITE - 1),
        "top_minus_bottom": top - bottom,
        "mirror_symmetry": mirrored / (variance + _TINY),
        "center_minus_border": (center - mean) / (1 - _CENTER_FRACTION),
        "horizontal_gradient_fraction": row_energy / (row_energy + column_energy + 4 * _TINY),
        "eyes_minus_cheeks": (eyes - cheeks) / np.maximum(contrast, _FLAT),
    }
    return {name: statistics[name].astype(np.float32, copy=False) for name in STATISTICS}


def all_image_statistics(pixels: Pixels) -> dict[str, Floats]:
    """Return `image_statistics` of any number of images, computed in chunks to bound the memory."""
    chunks = [image_statistics(pixels[start : start + _CHUNK]) for start in range(0, len(pixels), _CHUNK)]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in STATISTICS}


@functools.cache
def _weights(height: int, width: int) -> _Weights:
    left, right = (round(fraction * width) for fraction in _FACE_COLUMNS)
    areas = (
        np.s_[:, :],
        np.s_[: height // 2, :],
        np.s_[height // 2 :, :],
        np.s_[height // 4 : -(height // 4), width // 4 : -(width // 4)],
        *(np.s_[round(a * height) : round(b * height), left:right] for a, b in (_EYES_ROWS, _CHEEKS_ROWS)),
    )
    regions = np.zeros((len(areas), height, width), dtype=np.float32)
    for region, area in zip(regions, areas, strict=True):
        region[area] = 1
    flat_regions = regions.reshape(len(areas), -1)
    inner = np.zeros((height, width), dtype=np.float32)
    inner[1:-1, 1:-1] = 1 / inner[1:-1, 1:-1].size
    return _Weights(flat_regions, flat_regions.sum(axis=1, keepdims=True), inner.ravel()[width + 1 : -width - 1])


def _mean(values: npt.NDArray[np.float32] | npt.NDArray[np.bool_]) -> Floats:
    # Without the checks of `np.mean`, which cost as much as the sum for one image.
    total = np.add.reduce(values, axis=1, dtype=np.float32)
    return np.asarray(total / np.float32(values.shape[1]), dtype=np.float32)


def _noise(gray: Floats, width: int) -> Floats:
    # The difference of two Laplacians, which smooth structure hardly affects.
    across_rows = gray[:, : -2 * width] - 2 * gray[:, width:-width] + gray[:, 2 * width :]
    difference = across_rows[:, :-2] - 2 * across_rows[:, 1:-1] + across_rows[:, 2:]
    return np.asarray(_IMMERKAER * np.abs(difference), dtype=np.float32)


def _entropy(flat: Pixels) -> Floats:
    count, num_bins = len(flat), 1 << _GRAY_BIN_BITS
    bins = (flat >> (8 - _GRAY_BIN_BITS)) + num_bins * np.arange(count)[:, None]
    fraction = np.bincount(bins.ravel(), minlength=count * num_bins).reshape(count, num_bins) / flat.shape[1]
    return np.asarray(-(fraction * np.log2(np.maximum(fraction, _TINY))).sum(axis=1), dtype=np.float32)
