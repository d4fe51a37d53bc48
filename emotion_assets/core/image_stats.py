"""Thirteen numbers that say what a picture looks like without keeping it.

They are computed from the 64×64 grey pixels that the network sees, so that the numbers of a training
picture and of a served one can be compared: whatever camera, size or format it had.
"""

from __future__ import annotations

from typing import Any, Final

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
    "centre_minus_border",
    "horizontal_gradient_fraction",
    "eyes_minus_cheeks",
)

# Where a face crop has its eyes, and what lies below them; in shares of the side.
_EYES_ROWS: Final = (0.28, 0.47)
_CHEEKS_ROWS: Final = (0.5, 0.66)
_FACE_COLUMNS: Final = (0.16, 0.84)
_EDGE_GRADIENT: Final = 0.1
_NUM_GREY_BINS: Final = 32
_TINY: Final = 1e-6
_FLAT: Final = np.float32(1 / 255)

Floats = npt.NDArray[np.float32]


def image_statistics(pixels: Pixels) -> dict[str, Floats]:
    """Describe pictures by thirteen statistics.

    Args:
        pixels: uint8 (picture, row, column), 0..255.

    Returns:
        For each name in `STATISTICS` a float32 array (picture,). Grey values are taken as 0..1, so

        - brightness, contrast: mean and standard deviation of the grey values;
        - sharpness: mean gradient magnitude; detail: log of the Laplacian's variance;
        - entropy: bits of the histogram over 32 grey bins;
        - edge_fraction: share of pixels whose gradient exceeds 0.1; clipped_fraction: share at 0 or 255;
        - noise: standard deviation of the noise by Immerkær (1996), "Fast noise variance estimation";
        - top_minus_bottom, centre_minus_border: differences of mean brightness;
        - mirror_symmetry: correlation of a picture with its mirror image;
        - horizontal_gradient_fraction: share of the gradient energy along rows;
        - eyes_minus_cheeks: difference of mean brightness in standard deviations, negative for most faces, as Viola
          and Jones (2001, "Rapid object detection using a boosted cascade of simple features") found first.
    """
    grey = pixels.astype(np.float32) / np.float32(255)
    count, height, width = grey.shape
    mean = _mean(grey)
    centred = grey - mean[:, None, None]
    variance = _mean(centred * centred)
    along_rows = (grey[:, 1:-1, 2:] - grey[:, 1:-1, :-2]) / 2
    along_columns = (grey[:, 2:, 1:-1] - grey[:, :-2, 1:-1]) / 2
    row_squares, column_squares = along_rows * along_rows, along_columns * along_columns
    gradient = np.sqrt(row_squares + column_squares)
    row_energy, column_energy = _mean(row_squares), _mean(column_squares)
    centre = _mean(grey[:, height // 4 : -height // 4, width // 4 : -width // 4])
    centre_share = 0.25
    mirrored = _mean(centred * centred[:, :, ::-1])
    laplacian = _laplacian(grey)
    roughness = _mean(laplacian * laplacian) - _mean(laplacian) ** 2
    left, right = (round(share * width) for share in _FACE_COLUMNS)
    eyes, cheeks = (
        _mean(grey[:, round(first * height) : round(last * height), left:right])
        for first, last in (_EYES_ROWS, _CHEEKS_ROWS)
    )
    contrast = np.sqrt(variance)
    top, bottom = _mean(grey[:, : height // 2]), _mean(grey[:, height // 2 :])
    statistics = {
        "brightness": mean,
        "contrast": contrast,
        "sharpness": _mean(gradient),
        "detail": np.log(np.maximum(roughness, 0) + _TINY),
        "entropy": _entropy(pixels.reshape(count, -1)),
        "edge_fraction": _mean(gradient > _EDGE_GRADIENT),
        "noise": _noise(grey),
        "clipped_fraction": _mean((pixels == 0) | (pixels == 255)),
        "top_minus_bottom": top - bottom,
        "mirror_symmetry": mirrored / (variance + _TINY),
        "centre_minus_border": (centre - mean) / (1 - centre_share),
        "horizontal_gradient_fraction": row_energy / (row_energy + column_energy + _TINY),
        "eyes_minus_cheeks": (eyes - cheeks) / np.maximum(contrast, _FLAT),
    }
    return {name: statistics[name].astype(np.float32) for name in STATISTICS}


def _mean(values: npt.NDArray[Any]) -> Floats:
    # Without the checks of numpy's own `mean`, which cost as much as the sum for one picture.
    total = np.add.reduce(values, axis=(1, 2), dtype=np.float32)
    return np.asarray(total / np.float32(values.shape[1] * values.shape[2]), dtype=np.float32)


def _laplacian(grey: Floats) -> Floats:
    return grey[:, 1:-1, 2:] + grey[:, 1:-1, :-2] + grey[:, 2:, 1:-1] + grey[:, :-2, 1:-1] - 4 * grey[:, 1:-1, 1:-1]


def _noise(grey: Floats) -> Floats:
    # The difference of two Laplacians, which smooth structure hardly excites.
    rows = grey[:, :-2] - 2 * grey[:, 1:-1] + grey[:, 2:]
    difference = rows[:, :, :-2] - 2 * rows[:, :, 1:-1] + rows[:, :, 2:]
    return np.asarray(np.sqrt(np.pi / 2) / 6 * _mean(np.abs(difference)), dtype=np.float32)


def _entropy(flat: Pixels) -> Floats:
    count = flat.shape[0]
    bins = flat.astype(np.int64) * _NUM_GREY_BINS // 256 + np.arange(count)[:, None] * _NUM_GREY_BINS
    histogram = np.bincount(bins.ravel(), minlength=count * _NUM_GREY_BINS).reshape(count, _NUM_GREY_BINS)
    share = histogram / flat.shape[1]
    return np.asarray(-(share * np.log2(np.maximum(share, _TINY))).sum(axis=1), dtype=np.float32)
