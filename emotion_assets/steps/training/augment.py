"""Augment whole batches: affine transforms, gamma, blur, lighting, noise and random erasing.

The ranges were tuned on validation faces together with the configuration (docs/log.md).
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from emotion_assets.steps.training.model import apply_orientation, standardize

_MAX_ROTATION_RAD: Final = 0.35
_MAX_LOG_SCALE: Final = 0.3
_MAX_LOG_ASPECT: Final = 0.07
_MAX_SHIFT: Final = 0.28  # the grid runs from -1 to 1, so this is 14 % of the side
_PLAIN_BORDER_FRACTION: Final = 0.3
_STRETCHED_BORDER_FRACTION: Final = 0.2
"""What lies outside an image is one gray, the pixel at its edge, or else its mirror image."""
_BLACK_FRACTION: Final = 0.5
_WHITE_FRACTION: Final = 0.15
_SIDEWAYS_FRACTION: Final = 0.02
_UPSIDE_DOWN_FRACTION: Final = 0.04
_INVERTED_FRACTION: Final = 0.03

_GAMMA_FRACTION: Final = 0.3
_MAX_LOG_GAMMA: Final = 0.5
_BLUR_FRACTION: Final = 0.1
_RAMP_FRACTION: Final = 0.2
_MAX_RAMP: Final = 1.0
_NOISE_FRACTION: Final = 0.12
_MAX_NOISE: Final = 0.4
_MAX_LOG_GAIN: Final = 0.2
_MAX_OFFSET: Final = 0.2
_ERASE_FRACTION: Final = 0.25
_ERASE_AREA: Final = (0.02, 0.22)
_MAX_ERASE_LOG_RATIO: Final = 0.9
_MAX_ERASE_SIDE: Final = 0.9


def augment(pixels: Tensor, side_px: int, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Return a random view of each image.

    One affine resampling does mirroring, rotation, scale, aspect ratio, shift and the step from 64 to `side_px`. Some
    images then get another gamma or a blur. After standardization some get a light gradient, noise or random erasing
    (Zhong et al. 2017), and all get another gain and offset.

    Args:
        pixels: uint8 (image, 64, 64), on the generator's device.
        side_px: rows and columns of the views.
        generator: source of all random numbers.
        strength: factor, 0..1, on the ranges of the affine transforms and on the fractions of images that get the rest.

    Returns:
        float32 (image, 1, side_px, side_px).
    """
    # 16-bit precision is for the network: here it would coarsen images and save nothing.
    with torch.autocast(pixels.device.type, enabled=False):
        grid = build_sampling_grid(_draw_affine(len(pixels), generator, strength), side_px)
        gray = pixels[:, None].float().div_(255)
        view = _change_gamma_and_blur(_sample(gray, grid, generator).clamp(0, 1), generator, strength)
        return _erase(_change_light_and_noise(standardize(view), generator, strength), generator, strength)


def build_sampling_grid(affine: Tensor, side_px: int) -> Tensor:
    """Return the sampling positions of square views: torch's `affine_grid` at a fifth of its cost.

    Args:
        affine: float (image, 2, 3), from a view's coordinates to its image's, both in -1..1.
        side_px: rows and columns of the views.

    Returns:
        float (image, row, column, 2): x and y.
    """
    centers = (2 * torch.arange(side_px, device=affine.device) + 1) / side_px - 1
    from_row = affine[:, :, 1, None] * centers + affine[:, :, 2, None]
    return torch.addcmul(from_row[..., None], affine[:, :, 0, None, None], centers).movedim(1, 3)


def randomize_orientation(views: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Turn a few views on their side or upside down, and invert a few.

    This costs upright faces at most half a point of accuracy, and the others lose far less (docs/log.md).
    Takes and returns standardized views, float (image, 1, side, side); `strength`, 0..1, is a factor on how many.
    """
    draw = _uniform((len(views),), generator)
    quarters = torch.where(_uniform((len(views),), generator) < 0.5, 1, 3)
    is_sideways = draw < strength * _SIDEWAYS_FRACTION
    is_upside_down = ~is_sideways & (draw < strength * (_SIDEWAYS_FRACTION + _UPSIDE_DOWN_FRACTION))
    turns = torch.where(is_upside_down, 2, torch.where(is_sideways, quarters, 0))
    is_inverted = _uniform((len(views),), generator) < strength * _INVERTED_FRACTION
    return apply_orientation(views, 2 * turns + is_inverted.long())


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return uniform random numbers in 0..1."""
    return torch.rand(shape, generator=generator, device=generator.device)


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return standard normal random numbers."""
    return torch.randn(shape, generator=generator, device=generator.device)


def _symmetric(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return uniform random numbers in -1..1."""
    return _uniform(shape, generator) * 2 - 1


def _choose_some(count: int, fraction: float, generator: torch.Generator) -> Tensor:
    """Choose a random fraction of the images: bool (image, 1, 1, 1)."""
    return _uniform((count, 1, 1, 1), generator) < fraction


def _draw_affine(count: int, generator: torch.Generator, strength: float) -> Tensor:
    angle = strength * _MAX_ROTATION_RAD * _symmetric((count,), generator)
    scale = torch.exp(strength * _MAX_LOG_SCALE * _symmetric((count,), generator))
    aspect = torch.exp(strength * _MAX_LOG_ASPECT * _symmetric((count,), generator))
    mirror = torch.where(_uniform((count,), generator) < 0.5, -1.0, 1.0)
    shift = strength * _MAX_SHIFT * _symmetric((count, 2), generator)
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    rows = torch.stack([cosine * aspect * mirror, -sine / aspect, shift[:, 0]], dim=1)
    columns = torch.stack([sine * aspect * mirror, cosine / aspect, shift[:, 1]], dim=1)
    return torch.stack([rows, columns], dim=1)


def _sample(gray: Tensor, grid: Tensor, generator: torch.Generator) -> Tensor:
    """Sample images at a grid's positions, with another border for each."""
    count = len(gray)
    border = _uniform((count, 1, 1, 1), generator)
    period = (grid + 1) % 4
    mirrored = torch.where(period > 2, 4 - period, period) - 1
    is_mirrored = border >= _PLAIN_BORDER_FRACTION + _STRETCHED_BORDER_FRACTION
    positions = torch.where(is_mirrored, mirrored, grid)
    view = functional.grid_sample(gray, positions, mode="bilinear", padding_mode="border", align_corners=False)
    kind, level = _uniform((count, 1, 1, 1), generator), _uniform((count, 1, 1, 1), generator)
    level = torch.where(kind < _BLACK_FRACTION + _WHITE_FRACTION, 1.0, level)
    level = torch.where(kind < _BLACK_FRACTION, 0.0, level)
    is_outside = (grid.abs() > 1).any(dim=3)[:, None]
    return torch.where(is_outside & (border < _PLAIN_BORDER_FRACTION), level, view)


def _change_gamma_and_blur(view: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """Change gamma, and apply a 3×3 binomial blur twice, in some images."""
    count = len(view)
    gamma = torch.exp(_MAX_LOG_GAMMA * _symmetric((count, 1, 1, 1), generator))
    view = torch.where(_choose_some(count, strength * _GAMMA_FRACTION, generator), view.clamp_min(1e-4) ** gamma, view)
    chosen = _choose_some(count, strength * _BLUR_FRACTION, generator).flatten().nonzero().flatten()
    weights = torch.tensor([0.25, 0.5, 0.25], device=view.device)
    kernel = (weights[:, None] * weights)[None, None]
    blurred = view[chosen]
    for _ in range(2):
        blurred = functional.conv2d(functional.pad(blurred, (1, 1, 1, 1), mode="replicate"), kernel)
    return view.index_copy(0, chosen, blurred)


def _change_light_and_noise(view: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """Add a light gradient and noise to some standardized images, and change gain and offset of all."""
    count, _, height, width = view.shape
    across = torch.linspace(-1, 1, width, device=view.device)[None, None, None, :]
    down = torch.linspace(-1, 1, height, device=view.device)[None, None, :, None]
    slopes = _MAX_RAMP * _symmetric((2, count, 1, 1, 1), generator)
    slopes = slopes * _choose_some(count, strength * _RAMP_FRACTION, generator)
    level = _MAX_NOISE * _uniform((count, 1, 1, 1), generator)
    level = level * _choose_some(count, strength * _NOISE_FRACTION, generator)
    gain = torch.exp(_MAX_LOG_GAIN * _symmetric((count, 1, 1, 1), generator))
    offset = _MAX_OFFSET * _symmetric((count, 1, 1, 1), generator)
    noise = _normal(view.shape, generator)
    return (view + slopes[0] * across + slopes[1] * down + level * noise) * gain + offset


def _erase(view: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """Fill a rectangle of some images with one random gray."""
    count, _, height, width = view.shape
    low, high = _ERASE_AREA
    area = low + (high - low) * _uniform((count,), generator)
    ratio = torch.exp(_MAX_ERASE_LOG_RATIO * _symmetric((count,), generator))
    tall = (area * ratio).sqrt().clamp(max=_MAX_ERASE_SIDE) * height
    broad = (area / ratio).sqrt().clamp(max=_MAX_ERASE_SIDE) * width
    top = _uniform((count,), generator) * (height - tall)
    left = _uniform((count,), generator) * (width - broad)
    down, across = torch.arange(height, device=view.device), torch.arange(width, device=view.device)
    rows = (down >= top[:, None]) & (down < (top + tall)[:, None])
    columns = (across >= left[:, None]) & (across < (left + broad)[:, None])
    hole = (rows[:, :, None] & columns[:, None, :])[:, None]
    hole = hole & _choose_some(count, strength * _ERASE_FRACTION, generator)
    return torch.where(hole, _normal((count, 1, 1, 1), generator), view)
