"""Make every training batch a little different: geometry, light and holes, as operations on whole batches."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from emotion_assets.steps.training.network import INPUT_SIZE_PX, standardise

_MAX_ROTATION_RAD: Final = 12 * torch.pi / 180
_MAX_LOG_SCALE: Final = 0.12
_MAX_LOG_ASPECT: Final = 0.06
_MAX_SHIFT: Final = 4 / 64 * 2  # the grid runs from -1 to 1, so 2 is the whole side
_MAX_GAIN: Final = 0.15
_MAX_OFFSET: Final = 0.15
_ERASE_SHARE: Final = 0.25
_ERASE_SIDE: Final = (0.15, 0.4)


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random view of each picture, at the network's resolution.

    One affine resampling does mirroring, rotation within ±12°, scale within ±12 %, aspect, shift within
    4 of 64 pixels, and the step from 64 to 48 pixels. Then come standardisation, gain and offset, and in
    a quarter of the pictures a grey rectangle (random erasing, Zhong et al. 2017).

    Args:
        pixels: uint8 (picture, 64, 64).
        generator: makes the result reproducible.

    Returns:
        float32 (picture, 1, 48, 48).
    """
    count = len(pixels)
    grid = functional.affine_grid(_affine(count, generator), [count, 1, INPUT_SIZE_PX, INPUT_SIZE_PX], False)
    grey = pixels[:, None].float() / 255
    view = functional.grid_sample(grey, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    view = standardise(view)
    gain = 1 + _MAX_GAIN * _symmetric((count, 1, 1, 1), generator)
    offset = _MAX_OFFSET * _symmetric((count, 1, 1, 1), generator)
    return _erase(view * gain + offset, generator)


def _symmetric(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return uniform random numbers in -1..1."""
    return torch.rand(shape, generator=generator) * 2 - 1


def _affine(count: int, generator: torch.Generator) -> Tensor:
    angle = _MAX_ROTATION_RAD * _symmetric((count,), generator)
    scale = torch.exp(_MAX_LOG_SCALE * _symmetric((count,), generator))
    aspect = torch.exp(_MAX_LOG_ASPECT * _symmetric((count,), generator))
    mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    shift = _MAX_SHIFT * _symmetric((count, 2), generator)
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    rows = torch.stack([cosine * aspect * mirror, -sine / aspect, shift[:, 0]], dim=1)
    columns = torch.stack([sine * aspect * mirror, cosine / aspect, shift[:, 1]], dim=1)
    return torch.stack([rows, columns], dim=1)


def _erase(view: Tensor, generator: torch.Generator) -> Tensor:
    count, _, height, width = view.shape
    low, high = _ERASE_SIDE
    sides = (low + (high - low) * torch.rand(count, 2, generator=generator)) * height
    starts = torch.rand(count, 2, generator=generator) * (height - sides)
    chosen = torch.rand(count, generator=generator) < _ERASE_SHARE
    down = torch.arange(height)[None, :, None]
    across = torch.arange(width)[None, None, :]
    (top, left), (tall, broad) = starts.unbind(1), sides.unbind(1)
    hole = (
        (down >= top[:, None, None])
        & (down < (top + tall)[:, None, None])
        & (across >= left[:, None, None])
        & (across < (left + broad)[:, None, None])
        & chosen[:, None, None]
    )
    return view.masked_fill(hole[:, None], 0.0)
