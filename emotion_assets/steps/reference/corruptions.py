"""The corruption profile: validation faces under known corruptions, with the model's predictions for them.

When the prediction log drifts later, the most similar known corruption names the cause and what it costs in accuracy.
Most changes of the input cost nothing and need no attention.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from emotion_assets.core.images import IMAGE_SIZE_PX, Pixels
from emotion_assets.core.limits import count_cpus
from emotion_assets.steps.reference.reference import build_reference
from emotion_assets.steps.splits.splits import Split

_logger = logging.getLogger(__name__)

CORRUPTION_COLUMN: Final = "corruption"
STRENGTH_COLUMN: Final = "strength"
PART_COLUMN: Final = "part"
"""Another corruption on top of the first, which may concern a part of a window only; empty for none."""
INDEX_COLUMN: Final = "val_index"
"""Position of the face in the validation split, and so in the reference."""
UNCHANGED: Final = "unchanged"
MIN_FACES: Final = 50
"""With fewer validation faces the cost of a corruption would be a guess."""

_MAX_FACES: Final = 600
_MAX_COMBINED_FACES: Final = 300
# Corruptions act on a larger image, as they do before an image is reduced; rotating 64×64 pixels would blur them.
_SCALE: Final = 3
_SIDE_PX: Final = _SCALE * IMAGE_SIZE_PX

_PADDING: Final[dict[str, dict[str, Any]]] = {
    "black": {"constant_values": 0},
    "white": {"constant_values": 255},
    "stretched": {"mode": "edge"},
    "mirrored": {"mode": "reflect"},
}
"""By border, for `np.pad`: what moves into an image that is tilted, shifted or zoomed out."""
Corruption = Callable[[Image.Image, np.random.Generator], Image.Image]


def corruption_profile(val: Split, predict: Callable[[Pixels], npt.NDArray[np.float32]]) -> pd.DataFrame | None:
    """Return the logged features of validation faces under each corruption; None for fewer than 50 faces.

    Args:
        val: validation faces, of which at most 600 are used, and at most 300 for combined corruptions.
        predict: from uint8 (image, 64, 64) to probabilities, float32 (image, emotion).

    Returns:
        The columns of `build_reference`, with `corruption`, `strength`, `part` and `val_index`, the position in `val`.
        Every corruption, and `unchanged`, has the same faces in the same order; combined ones have the first of them.
    """
    if len(val.pixels) < MIN_FACES:
        return None
    chosen = np.random.default_rng(0).permutation(len(val.pixels))[:_MAX_FACES]
    conditions = {(*key, ""): corrupt for key, corrupt in CORRUPTIONS.items()} | COMBINATIONS
    _logger.info("Simulating %d known corruptions on %d validation faces", len(conditions) - 1, len(chosen))
    large = [
        Image.fromarray(face).resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BICUBIC) for face in val.pixels[chosen]
    ]
    hashes = tuple(val.content_hashes[i] for i in chosen)

    def simulate(condition: tuple[str, float, str]) -> pd.DataFrame:
        name, strength, part = condition
        rng, count = np.random.default_rng(1), _MAX_COMBINED_FACES if part else _MAX_FACES
        corrupt = conditions[condition]
        pixels = np.stack([np.asarray(corrupt(face, rng).reduce(_SCALE)) for face in large[:count]])
        corrupted = Split(pixels, val.class_indices[chosen[:count]], hashes[:count], val.emotions)
        table = build_reference(corrupted, predict(pixels))
        table[CORRUPTION_COLUMN], table[STRENGTH_COLUMN], table[PART_COLUMN] = name, strength, part
        table[INDEX_COLUMN] = chosen[:count]
        return table

    with ThreadPoolExecutor(count_cpus()) as threads:
        return pd.concat(threads.map(simulate, conditions), ignore_index=True)


def _to_image(values: npt.NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _relight(factor: float, offset: float) -> Corruption:
    return lambda face, _: face.point(lambda value: round(min(max(value * factor + offset, 0), 255)))


def _blur(radius_px: float) -> Corruption:
    return lambda face, _: face.filter(ImageFilter.GaussianBlur(_SCALE * radius_px))


def _add_noise(deviation: float) -> Corruption:
    return lambda face, rng: _to_image(np.asarray(face) + rng.normal(0, _SCALE * deviation, (_SIDE_PX, _SIDE_PX)))


def _compress(quality: float) -> Corruption:
    # The service reduces a photograph by a wider filter than `Image.reduce`, which keeps the edges of JPEG's blocks.
    soften = ImageFilter.GaussianBlur(1.3)

    def corrupt(face: Image.Image, _: np.random.Generator) -> Image.Image:
        file = io.BytesIO()
        face.save(file, "JPEG", quality=int(quality))
        before, after = (np.asarray(image.filter(soften), dtype=np.float64) for image in (face, Image.open(file)))
        return _to_image(np.asarray(face) + after - before)

    return corrupt


def _warp(border: str, *, degrees: float = 0, shift: float = 0, scale: float = 1) -> Corruption:
    """Rotate to either side, shift to either side by a fraction of the width, or zoom out by `scale`."""

    def corrupt(face: Image.Image, rng: np.random.Generator) -> Image.Image:
        angle, left = (np.deg2rad(degrees), shift * _SIDE_PX) * rng.choice((-1, 1), 2)
        wide = Image.fromarray(np.pad(np.asarray(face), _SIDE_PX, **_PADDING[border]))
        cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
        middle, half = 1.5 * _SIDE_PX, _SIDE_PX / 2
        across = middle + left - half * (cosine - sine)
        down = middle - half * (cosine + sine)
        data = (cosine, -sine, across, sine, cosine, down)
        return wide.transform(face.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)

    return corrupt


def _warp_by(argument: str, border: str) -> Callable[[float], Corruption]:
    return lambda strength: _warp(border, **{argument: strength})


def _occlude(fraction: float) -> Corruption:
    """Cover a random square whose side is a fraction of the image's."""

    def corrupt(face: Image.Image, rng: np.random.Generator) -> Image.Image:
        side = round(fraction * _SIDE_PX)
        left, top = rng.integers(_SIDE_PX // 10, 9 * _SIDE_PX // 10 - side, 2).tolist()
        corrupted = face.copy()
        corrupted.paste(int(rng.choice((0, 0, 128))), (left, top, left + side, top + side))
        return corrupted

    return corrupt


def _paint(gray: int, *boxes: tuple[float, float, float, float]) -> Corruption:
    """Cover boxes, given as left, top, right and bottom in fractions of the side."""

    def corrupt(face: Image.Image, _: np.random.Generator) -> Image.Image:
        corrupted = face.copy()
        for box in boxes:
            ImageDraw.Draw(corrupted).rectangle([fraction * _SIDE_PX for fraction in box], fill=gray)
        return corrupted

    return corrupt


def _shuffle(face: Image.Image, rng: np.random.Generator) -> Image.Image:
    side = _SIDE_PX // 4
    tiles = np.asarray(face).reshape(4, side, 4, side).swapaxes(1, 2).reshape(16, side, side)
    shuffled = tiles[rng.permutation(16)].reshape(4, 4, side, side).swapaxes(1, 2)
    return Image.fromarray(shuffled.reshape(_SIDE_PX, _SIDE_PX))


def _replace_by_clouds(face: Image.Image, rng: np.random.Generator) -> Image.Image:
    cells = int(rng.integers(6, 30))
    return _to_image(rng.uniform(0, 255, (cells, cells))).resize(face.size, Image.Resampling.BICUBIC)


_EYES: Final = ((0.12, 0.27, 0.45, 0.46), (0.55, 0.27, 0.88, 0.46))
_BAR: Final = (0.1, 0.27, 0.9, 0.46)
_MOUTH: Final = (0.1, 0.57, 0.9, 1.0)
_BORDERS: Final = ("black", "white", "stretched")

GRADED: Final[dict[str, tuple[Callable[[float], Corruption], tuple[float, ...]]]] = {
    "darker": (lambda factor: _relight(factor, 0), (0.85, 0.7, 0.5, 0.35, 0.2)),
    "brighter": (lambda offset: _relight(1, offset), (20, 40, 65, 90)),
    "lower in contrast": (lambda factor: _relight(factor, 127 * (1 - factor)), (0.85, 0.65, 0.4, 0.2, 0.1)),
    "blurrier": (_blur, (0.5, 0.8, 1.3, 2, 3, 4.5)),
    "noisier": (_add_noise, (2, 4, 8, 18, 36)),
    "more compressed": (_compress, (25, 10, 5, 2)),
    "tilted": (_warp_by("degrees", "mirrored"), (7, 12, 20, 28, 36)),
    **{f"tilted, with a {border} border": (_warp_by("degrees", border), (12, 22, 34)) for border in _BORDERS},
    "partly occluded": (_occlude, (0.16, 0.25, 0.33, 0.42)),
    "shifted sideways": (_warp_by("shift", "mirrored"), (0.06, 0.12, 0.19, 0.27, 0.35)),
    "closer to the camera": (_warp_by("scale", "mirrored"), (0.92, 0.85, 0.78, 0.72, 0.66, 0.6)),
    "farther away, with a black border": (_warp_by("scale", "black"), (1.08, 1.2, 1.35, 1.6, 1.9)),
    **{
        f"shifted sideways, with a {border} border": (_warp_by("shift", border), (0.1, 0.18, 0.28))
        for border in _BORDERS
    },
    **{
        f"farther away, with a {border} border": (_warp_by("scale", border), (1.2, 1.45, 1.9))
        for border in ("white", "stretched", "mirrored")
    },
}
CORRUPTIONS: Final[dict[tuple[str, float], Corruption]] = {
    (UNCHANGED, 0): lambda face, _: face,
    **{(name, value): make(value) for name, (make, values) in GRADED.items() for value in values},
    ("rotated by 90°", 90): lambda face, _: face.transpose(Image.Transpose.ROTATE_90),
    ("rotated by 90°", 270): lambda face, _: face.transpose(Image.Transpose.ROTATE_270),
    ("upside down", 0): lambda face, _: face.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    ("upside down", 180): lambda face, _: face.transpose(Image.Transpose.ROTATE_180),
    ("inverted", 1): lambda face, _: ImageOps.invert(face),
    ("covered at the eyes", 10): _paint(10, *_EYES),
    ("covered at the eyes", 60): _paint(60, _BAR),
    ("covered at the mouth", 60): _paint(60, _MOUTH),
    ("covered at the mouth", 220): _paint(220, _MOUTH),
    ("shuffled", 16): _shuffle,
    ("unlike faces", 0): _replace_by_clouds,
}
"""By name and strength: faults of cameras, crops and pipelines. A name completes "images look …"."""


def _combine(first: Corruption, second: Corruption) -> Corruption:
    return lambda face, rng: second(first(face, rng), rng)


_HARMLESS: Final = {
    "darker": (0.7, 0.5, 0.35),
    "brighter": (40, 65, 90),
    "lower in contrast": (0.65, 0.4, 0.2),
    "blurrier": (0.8, 1.3, 2),
    "noisier": (4, 8, 18),
    "more compressed": (10, 5, 2),
}
_HARMFUL: Final = (("inverted", 1), ("rotated by 90°", 90), ("upside down", 0))
COMBINATIONS: Final[dict[tuple[str, float, str], Corruption]] = {
    (name, strength, part[0]): _combine(CORRUPTIONS[name, strength], CORRUPTIONS[part])
    for name, strengths in _HARMLESS.items()
    for strength in strengths
    for part in _HARMFUL
}
"""By name, strength and part: a change of all images must not hide a part of them that costs much accuracy."""
