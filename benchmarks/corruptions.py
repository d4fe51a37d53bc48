"""Forty-three ways in which the images of a real camera, or of a broken pipeline, differ from training faces.

They act on the image as it was sent, before it is reduced to 64×64: eleven kinds at three severities, and
ten that either are or are not. Written apart from `steps.training.corruption profile` on purpose: what is measured must not be
what was corrupted. `benchmarks.drift_power` asks whether the drift verdict sees them,
`benchmarks.robustness` how much accuracy they cost.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from emotion_assets.core.images import Pixels, decode_gray, face_pixels

Corruption = Callable[[Image.Image, np.random.Generator], Image.Image]
"""From an image in mode L to another of the same size."""

_SIDE_PX: Final = 224


def _gray(values: npt.NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _scaled(factor: float, offset: float = 0) -> Corruption:
    return lambda face, _: face.point(lambda value: round(min(max(value * factor + offset, 0), 255)))


def _blurred(radius_px: float) -> Corruption:
    return lambda face, _: face.filter(ImageFilter.GaussianBlur(radius_px))


def _noisy(deviation: float) -> Corruption:
    return lambda face, rng: _gray(np.asarray(face) + rng.normal(0, deviation, (face.height, face.width)))


def _compressed(quality: int) -> Corruption:
    def change(face: Image.Image, _: np.random.Generator) -> Image.Image:
        file = io.BytesIO()
        face.save(file, "JPEG", quality=quality)
        return Image.open(file).copy()

    return change


def _widened(face: Image.Image) -> Image.Image:
    """Return three by three copies, mirrored at the seams, so that a turn or a shift shows no empty corners."""
    rows = np.pad(np.asarray(face), ((face.height,) * 2, (face.width,) * 2), mode="reflect")
    return Image.fromarray(rows)


def _tilted(degrees: float) -> Corruption:
    def change(face: Image.Image, rng: np.random.Generator) -> Image.Image:
        angle = degrees * rng.choice((-1, 1))
        turned = _widened(face).rotate(angle, Image.Resampling.BILINEAR)
        return turned.crop((face.width, face.height, 2 * face.width, 2 * face.height))

    return change


def _shifted(fraction: float) -> Corruption:
    def change(face: Image.Image, rng: np.random.Generator) -> Image.Image:
        left = face.width + round(face.width * fraction) * int(rng.choice((-1, 1)))
        return _widened(face).crop((left, face.height, left + face.width, 2 * face.height))

    return change


def _zoomed_in(fraction: float) -> Corruption:
    def change(face: Image.Image, _: np.random.Generator) -> Image.Image:
        across, down = (round(side * (1 - fraction) / 2) for side in face.size)
        part = face.crop((across, down, face.width - across, face.height - down))
        return part.resize(face.size, Image.Resampling.BILINEAR)

    return change


def _zoomed_out(fraction: float) -> Corruption:
    def change(face: Image.Image, _: np.random.Generator) -> Image.Image:
        small = face.resize((round(face.width * fraction), round(face.height * fraction)), Image.Resampling.BILINEAR)
        changed = Image.new("L", face.size)
        changed.paste(small, ((face.width - small.width) // 2, (face.height - small.height) // 2))
        return changed

    return change


def _covered(fraction: float) -> Corruption:
    def change(face: Image.Image, rng: np.random.Generator) -> Image.Image:
        side = round(face.width * fraction)
        left, top = (int(rng.integers(face.width // 8, 7 * face.width // 8 - side)) for _ in range(2))
        changed = face.copy()
        changed.paste(0, (left, top, left + side, top + side))
        return changed

    return change


def _drawn(shape: str, box: tuple[float, float, float, float], gray: int) -> Corruption:
    """Return what draws a shape over a part of the face, given as fractions of its width and height."""

    def change(face: Image.Image, _: np.random.Generator) -> Image.Image:
        changed = face.copy()
        place = [fraction * side for fraction, side in zip(box, (*face.size, *face.size), strict=True)]
        getattr(ImageDraw.Draw(changed), shape)(place, fill=gray)
        return changed

    return change


def _with_sunglasses(face: Image.Image, rng: np.random.Generator) -> Image.Image:
    for box in ((0.12, 0.26, 0.46, 0.48), (0.54, 0.26, 0.88, 0.48), (0.4, 0.32, 0.6, 0.37)):
        face = _drawn("ellipse", box, 15)(face, rng)
    return face


def _turned(how: Image.Transpose) -> Corruption:
    return lambda face, _: face.transpose(how)


def _texture(face: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return clouds of a random coarseness instead of a face."""
    cells = int(rng.integers(4, 40))
    return _gray(rng.uniform(0, 255, (cells, cells))).resize(face.size, Image.Resampling.BICUBIC)


def _stripes(face: Image.Image, rng: np.random.Generator) -> Image.Image:
    angle, waves = rng.uniform(0, np.pi), rng.uniform(2, 20)
    down, across = np.indices((face.height, face.width)) / face.width
    return _gray(127 + 100 * np.sin(2 * np.pi * waves * (across * np.cos(angle) + down * np.sin(angle))))


def _shuffled(face: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return the face as a puzzle of four by four pieces in a random order."""
    side = face.width // 4
    corners = [(column * side, row * side) for row in range(4) for column in range(4)]
    changed = face.copy()
    for (left, top), place in zip((corners[i] for i in rng.permutation(16)), corners, strict=True):
        changed.paste(face.crop((left, top, left + side, top + side)), place)
    return changed


_FAMILIES: Final[dict[str, tuple[Callable[[float], Corruption], tuple[float, float, float]]]] = {
    "darker, times": (_scaled, (0.8, 0.6, 0.4)),
    "brighter, plus": (lambda offset: _scaled(1, offset), (25, 50, 80)),
    "less contrast, times": (lambda factor: _scaled(factor, 127 * (1 - factor)), (0.75, 0.5, 0.25)),
    "blur, px": (_blurred, (2, 4, 7)),
    "noise, deviation": (_noisy, (15, 30, 60)),
    "JPEG quality": (lambda quality: _compressed(int(quality)), (20, 8, 3)),
    "tilt, degrees": (_tilted, (8, 15, 30)),
    "black square, fraction of the side": (_covered, (0.15, 0.25, 0.4)),
    "shifted sideways, share": (_shifted, (0.08, 0.16, 0.28)),
    "zoomed in, to share": (_zoomed_in, (0.9, 0.8, 0.65)),
    "zoomed out, to share": (_zoomed_out, (0.9, 0.75, 0.6)),
}
CORRUPTIONS: Final[dict[str, Corruption]] = {
    f"{name} {value:g}": make(value) for name, (make, values) in _FAMILIES.items() for value in values
} | {
    "turned 90 degrees": _turned(Image.Transpose.ROTATE_90),
    "turned 180 degrees": _turned(Image.Transpose.ROTATE_180),
    "upside down": _turned(Image.Transpose.FLIP_TOP_BOTTOM),
    "mirrored": _turned(Image.Transpose.FLIP_LEFT_RIGHT),
    "sunglasses": _with_sunglasses,
    "face mask": _drawn("rectangle", (0.1, 0.55, 0.9, 1.0), 200),
    "inverted": lambda face, _: ImageOps.invert(face),
    "shuffled": _shuffled,
    "texture": _texture,
    "stripes": _stripes,
}
WITHOUT_FACE: Final = ("texture", "stripes")
"""Nothing of the face is left, so that no label is true."""


def corrupted(paths: list[Path], name: str) -> Pixels:
    """Return the images at `paths`, corrupted as `name` says: uint8 (image, 64, 64).

    What is random depends on the place in `paths` alone.
    """
    change = CORRUPTIONS[name]
    return np.stack(
        [face_pixels(change(_image(path), np.random.default_rng((7, position)))) for position, path in enumerate(paths)]
    )


def _image(path: Path) -> Image.Image:
    return decode_gray(path.read_bytes(), _SIDE_PX).image.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BILINEAR)
