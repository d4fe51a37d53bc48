"""Forty-three corruptions: faults of cameras, crops and pipelines.

They act on the original image, before it is reduced to 64×64: eleven kinds at three severities, and ten single ones.
Their code is independent of `steps.reference.corruptions`, so that the drift verdict is not tested on what it was
fitted to. `benchmarks.drift_power` measures whether it detects them, `benchmarks.robustness` what they cost.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from emotion_assets.core.images import Pixels, decode_gray, face_pixels

Corruption = Callable[[Image.Image, np.random.Generator], Image.Image]
"""From an image in mode L to another of the same size."""

Border = Literal["black", "white", "edge", "mirrored"]

_SIDE_PX: Final = 224


def _to_image(values: npt.NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _change_gamma_and_blur(factor: float, offset: float = 0) -> Corruption:
    return lambda face, _: face.point(lambda value: round(min(max(value * factor + offset, 0), 255)))


def _blur(radius_px: float) -> Corruption:
    return lambda face, _: face.filter(ImageFilter.GaussianBlur(radius_px))


def _add_noise(deviation: float) -> Corruption:
    return lambda face, rng: _to_image(np.asarray(face) + rng.normal(0, deviation, (face.height, face.width)))


def _compress(quality: int) -> Corruption:
    def corrupt(face: Image.Image, _: np.random.Generator) -> Image.Image:
        file = io.BytesIO()
        face.save(file, "JPEG", quality=quality)
        return Image.open(file).copy()

    return corrupt


def _add_borders(face: Image.Image, border: Border) -> Image.Image:
    """Pad to three times the side: what a rotation or a shift moves into the image."""
    widths = ((face.height,) * 2, (face.width,) * 2)
    pixels = np.asarray(face)
    if border in ("black", "white"):
        return Image.fromarray(np.pad(pixels, widths, constant_values=0 if border == "black" else 255))
    return Image.fromarray(np.pad(pixels, widths, mode="edge" if border == "edge" else "reflect"))


def _tilt(degrees: float, border: Border = "mirrored") -> Corruption:
    def corrupt(face: Image.Image, rng: np.random.Generator) -> Image.Image:
        angle = degrees * rng.choice((-1, 1))
        rotated = _add_borders(face, border).rotate(angle, Image.Resampling.BILINEAR)
        return rotated.crop((face.width, face.height, 2 * face.width, 2 * face.height))

    return corrupt


def _shift(fraction: float, border: Border = "mirrored") -> Corruption:
    def corrupt(face: Image.Image, rng: np.random.Generator) -> Image.Image:
        left = face.width + round(face.width * fraction) * int(rng.choice((-1, 1)))
        return _add_borders(face, border).crop((left, face.height, left + face.width, 2 * face.height))

    return corrupt


def _zoom_in(fraction: float) -> Corruption:
    def corrupt(face: Image.Image, _: np.random.Generator) -> Image.Image:
        across, down = (round(side * (1 - fraction) / 2) for side in face.size)
        part = face.crop((across, down, face.width - across, face.height - down))
        return part.resize(face.size, Image.Resampling.BILINEAR)

    return corrupt


def _zoom_out(fraction: float) -> Corruption:
    def corrupt(face: Image.Image, _: np.random.Generator) -> Image.Image:
        small = face.resize((round(face.width * fraction), round(face.height * fraction)), Image.Resampling.BILINEAR)
        corrupted = Image.new("L", face.size)
        corrupted.paste(small, ((face.width - small.width) // 2, (face.height - small.height) // 2))
        return corrupted

    return corrupt


def _occlude(fraction: float) -> Corruption:
    def corrupt(face: Image.Image, rng: np.random.Generator) -> Image.Image:
        side = round(face.width * fraction)
        left, top = (int(rng.integers(face.width // 8, 7 * face.width // 8 - side)) for _ in range(2))
        corrupted = face.copy()
        corrupted.paste(0, (left, top, left + side, top + side))
        return corrupted

    return corrupt


def _draw(shape: str, box: tuple[float, float, float, float], gray: int) -> Corruption:
    """Draw a shape into a box of left, top, right and bottom, in fractions of the side."""

    def corrupt(face: Image.Image, _: np.random.Generator) -> Image.Image:
        corrupted = face.copy()
        pixels = [fraction * side for fraction, side in zip(box, (*face.size, *face.size), strict=True)]
        getattr(ImageDraw.Draw(corrupted), shape)(pixels, fill=gray)
        return corrupted

    return corrupt


def _add_sunglasses(face: Image.Image, rng: np.random.Generator) -> Image.Image:
    for box in ((0.12, 0.26, 0.46, 0.48), (0.54, 0.26, 0.88, 0.48), (0.4, 0.32, 0.6, 0.37)):
        face = _draw("ellipse", box, 15)(face, rng)
    return face


def _transpose(method: Image.Transpose) -> Corruption:
    return lambda face, _: face.transpose(method)


def _replace_by_texture(face: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return clouds of a random coarseness."""
    cells = int(rng.integers(4, 40))
    return _to_image(rng.uniform(0, 255, (cells, cells))).resize(face.size, Image.Resampling.BICUBIC)


def _replace_by_stripes(face: Image.Image, rng: np.random.Generator) -> Image.Image:
    angle, waves = rng.uniform(0, np.pi), rng.uniform(2, 20)
    down, across = np.indices((face.height, face.width)) / face.width
    return _to_image(127 + 100 * np.sin(2 * np.pi * waves * (across * np.cos(angle) + down * np.sin(angle))))


def _shuffle(face: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Shuffle four by four tiles."""
    side = face.width // 4
    corners = [(column * side, row * side) for row in range(4) for column in range(4)]
    corrupted = face.copy()
    for (left, top), corner in zip((corners[i] for i in rng.permutation(16)), corners, strict=True):
        corrupted.paste(face.crop((left, top, left + side, top + side)), corner)
    return corrupted


_GRADED: Final[dict[str, tuple[Callable[[float], Corruption], tuple[float, float, float]]]] = {
    "darker, × {:g}": (_change_gamma_and_blur, (0.8, 0.6, 0.4)),
    "brighter, + {:g}": (lambda offset: _change_gamma_and_blur(1, offset), (25, 50, 80)),
    "lower contrast, × {:g}": (lambda factor: _change_gamma_and_blur(factor, 127 * (1 - factor)), (0.75, 0.5, 0.25)),
    "blur, {:g} px": (_blur, (2, 4, 7)),
    "noise, deviation {:g}": (_add_noise, (15, 30, 60)),
    "JPEG quality {:g}": (lambda quality: _compress(int(quality)), (20, 8, 3)),
    "tilt {:g}°": (_tilt, (8, 15, 30)),
    "black square, side {:g}": (_occlude, (0.15, 0.25, 0.4)),
    "shifted by {:g}": (_shift, (0.08, 0.16, 0.28)),
    "zoomed in to {:g}": (_zoom_in, (0.9, 0.8, 0.65)),
    "zoomed out to {:g}": (_zoom_out, (0.9, 0.75, 0.6)),
}
CORRUPTIONS: Final[dict[str, Corruption]] = {
    name.format(value): make(value) for name, (make, values) in _GRADED.items() for value in values
} | {
    "rotated 90°": _transpose(Image.Transpose.ROTATE_90),
    "rotated 180°": _transpose(Image.Transpose.ROTATE_180),
    "upside down": _transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    "mirrored": _transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "sunglasses": _add_sunglasses,
    "face mask": _draw("rectangle", (0.1, 0.55, 0.9, 1.0), 200),
    "inverted": lambda face, _: ImageOps.invert(face),
    "shuffled": _shuffle,
    "texture": _replace_by_texture,
    "stripes": _replace_by_stripes,
}
FURTHER: Final[dict[str, Corruption]] = {
    **{f"shifted by 0.25, {border} border": _shift(0.25, border) for border in ("black", "white", "edge")},
    **{f"tilt 30°, {border} border": _tilt(30, border) for border in ("black", "white", "edge")},
    "blur, 14 px": _blur(14),
    "noise, deviation 120": _add_noise(120),
    "darker, × 0.2": _change_gamma_and_blur(0.2),
    "lower contrast, × 0.1": _change_gamma_and_blur(0.1, 114),
}
"""Other borders, and strengths beyond those above."""
WITHOUT_FACE: Final = ("texture", "stripes")
"""No face is left, so these have no label."""


def corrupt_images(paths: list[Path], *names: str) -> Pixels:
    """Return images under one or more corruptions, uint8 (image, 64, 64); what is random depends on the position."""
    corruptions = [(CORRUPTIONS | FURTHER)[name] for name in names]

    def corrupt(path: Path, index: int) -> Pixels:
        face, rng = _read(path), np.random.default_rng((7, index))
        for corruption in corruptions:
            face = corruption(face, rng)
        return face_pixels(face)

    return np.stack([corrupt(path, index) for index, path in enumerate(paths)])


def _read(path: Path) -> Image.Image:
    return decode_gray(path.read_bytes(), _SIDE_PX).image.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BILINEAR)
