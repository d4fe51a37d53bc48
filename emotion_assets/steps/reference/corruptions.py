"""What the log would look like if images went bad in ways that are known, and what that costs.

Before a model serves, its validation faces are darkened, blurred, turned, covered and so on, and it answers for
them. When the real log drifts later, the known corruption that looks most like it names the cause, and says how
much accuracy such images cost: most changes of the input cost nothing, and need nobody's attention.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from emotion_assets.core.images import IMAGE_SIZE_PX, Pixels
from emotion_assets.steps.reference.reference import build_reference
from emotion_assets.steps.splits.splits import Split

CORRUPTION_COLUMN: Final = "change"
STRENGTH_COLUMN: Final = "strength"
FACE_COLUMN: Final = "face"
"""Position of the unchanged face in the model's reference."""
UNCHANGED: Final = "unchanged"
MIN_FACES: Final = 50
"""With fewer validation faces a cost is only guessed, so nothing is corrupted."""

_MAX_FACES: Final = 600
# Changes act on a larger image, as they do before an image is reduced; a turn of 64×64 pixels would blur it.
_SCALE: Final = 3
_SIDE_PX: Final = _SCALE * IMAGE_SIZE_PX

Corruption = Callable[[Image.Image, np.random.Generator], Image.Image]


def corruption_profile(
    val: Split, answer: Callable[[Pixels], npt.NDArray[np.float32]], log: Callable[[str], None] = lambda _: None
) -> pd.DataFrame | None:
    """Return the logged values of validation faces under each change; None when there are fewer than 50.

    Args:
        val: validation faces, of which at most 600 are taken.
        answer: from uint8 (image, 64, 64) to probabilities, float32 (image, emotion).
        log: told what begins, as it takes as long as an epoch.

    Returns:
        The columns of `build_reference`, with `change` in words, its `strength`, and `face`, the position in `val`.
        Every change, and `unchanged`, has the same faces in the same order.
    """
    if len(val.pixels) < MIN_FACES:
        return None
    chosen = np.random.default_rng(0).permutation(len(val.pixels))[:_MAX_FACES]
    log(f"Simulating {len(CORRUPTIONS) - 1} known changes on {len(chosen)} validation faces, to name drift by later")
    large = [
        Image.fromarray(face).resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BICUBIC) for face in val.pixels[chosen]
    ]
    truth, hashes = val.class_indices[chosen], tuple(val.content_hashes[i] for i in chosen)
    tables = []
    for (words, strength), change in CORRUPTIONS.items():
        rng = np.random.default_rng(1)
        pixels = np.stack([np.asarray(change(face, rng).reduce(_SCALE)) for face in large])
        table = build_reference(Split(pixels, truth, hashes), answer(pixels))
        table[CORRUPTION_COLUMN], table[STRENGTH_COLUMN], table[FACE_COLUMN] = words, strength, chosen
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _gray(values: npt.NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _light(factor: float, offset: float) -> Corruption:
    return lambda face, _: face.point(lambda value: round(min(max(value * factor + offset, 0), 255)))


def _blurred(radius_px: float) -> Corruption:
    return lambda face, _: face.filter(ImageFilter.GaussianBlur(_SCALE * radius_px))


def _noisy(deviation: float) -> Corruption:
    return lambda face, rng: _gray(np.asarray(face) + rng.normal(0, _SCALE * deviation, (_SIDE_PX, _SIDE_PX)))


def _compressed(quality: float) -> Corruption:
    def change(face: Image.Image, _: np.random.Generator) -> Image.Image:
        file = io.BytesIO()
        face.save(file, "JPEG", quality=int(quality))
        return Image.open(file).copy()

    return change


def _moved(degrees: float = 0, shift: float = 0, scale: float = 1, *, is_framed: bool = False) -> Corruption:
    """Return what turns to either side, shifts to either side by a fraction of the width, or shows a larger part.

    What comes into view mirrors the border, or is black when `is_framed`.
    """

    def change(face: Image.Image, rng: np.random.Generator) -> Image.Image:
        angle, left = (np.deg2rad(degrees), shift * _SIDE_PX) * rng.choice((-1, 1), 2)
        wide = Image.fromarray(np.pad(np.asarray(face), _SIDE_PX, mode="constant" if is_framed else "reflect"))
        cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
        middle, half = 1.5 * _SIDE_PX, _SIDE_PX / 2
        across = middle + left - half * (cosine - sine)
        down = middle - half * (cosine + sine)
        data = (cosine, -sine, across, sine, cosine, down)
        return wide.transform(face.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)

    return change


def _covered(fraction: float) -> Corruption:
    def change(face: Image.Image, rng: np.random.Generator) -> Image.Image:
        side = round(fraction * _SIDE_PX)
        left, top = rng.integers(_SIDE_PX // 10, 9 * _SIDE_PX // 10 - side, 2).tolist()
        changed = face.copy()
        changed.paste(int(rng.choice((0, 0, 128))), (left, top, left + side, top + side))
        return changed

    return change


def _painted(gray: int, *boxes: tuple[float, float, float, float]) -> Corruption:
    """Return what covers boxes, given as left, top, right and bottom in fractions of the side."""

    def change(face: Image.Image, _: np.random.Generator) -> Image.Image:
        changed = face.copy()
        for box in boxes:
            ImageDraw.Draw(changed).rectangle([fraction * _SIDE_PX for fraction in box], fill=gray)
        return changed

    return change


def _in_pieces(face: Image.Image, rng: np.random.Generator) -> Image.Image:
    side = _SIDE_PX // 4
    pieces = np.asarray(face).reshape(4, side, 4, side).swapaxes(1, 2).reshape(16, side, side)
    mixed = pieces[rng.permutation(16)].reshape(4, 4, side, side).swapaxes(1, 2)
    return Image.fromarray(mixed.reshape(_SIDE_PX, _SIDE_PX))


def _clouds(face: Image.Image, rng: np.random.Generator) -> Image.Image:
    cells = int(rng.integers(6, 30))
    return _gray(rng.uniform(0, 255, (cells, cells))).resize(face.size, Image.Resampling.BICUBIC)


_EYES: Final = ((0.12, 0.27, 0.45, 0.46), (0.55, 0.27, 0.88, 0.46))
_BAR: Final = (0.1, 0.27, 0.9, 0.46)
_MOUTH: Final = (0.1, 0.57, 0.9, 1.0)

_GRADED: Final[dict[str, tuple[Callable[[float], Corruption], tuple[float, ...]]]] = {
    "darker": (lambda factor: _light(factor, 0), (0.85, 0.7, 0.5, 0.35)),
    "brighter": (lambda offset: _light(1, offset), (20, 40, 65, 90)),
    "flatter in contrast": (lambda factor: _light(factor, 127 * (1 - factor)), (0.85, 0.65, 0.4, 0.2)),
    "blurrier": (_blurred, (0.5, 0.8, 1.3, 2)),
    "noisier": (_noisy, (2, 4, 8, 18)),
    "harder compressed": (_compressed, (25, 10, 5, 2)),
    "tilted": (lambda degrees: _moved(degrees=degrees), (7, 12, 20, 28, 36)),
    "partly covered": (_covered, (0.16, 0.25, 0.33, 0.42)),
    "shifted sideways": (lambda fraction: _moved(shift=fraction), (0.06, 0.12, 0.19, 0.27, 0.35)),
    "closer to the camera": (lambda scale: _moved(scale=scale), (0.92, 0.85, 0.78, 0.72, 0.66, 0.6)),
    "farther away, in a frame": (lambda scale: _moved(scale=scale, is_framed=True), (1.08, 1.2, 1.35, 1.6, 1.9)),
}
CORRUPTIONS: Final[dict[tuple[str, float], Corruption]] = {
    (UNCHANGED, 0): lambda face, _: face,
    **{(words, value): make(value) for words, (make, values) in _GRADED.items() for value in values},
    ("turned to the side", 90): lambda face, _: face.transpose(Image.Transpose.ROTATE_90),
    ("turned to the side", 270): lambda face, _: face.transpose(Image.Transpose.ROTATE_270),
    ("upside down", 0): lambda face, _: face.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    ("upside down", 180): lambda face, _: face.transpose(Image.Transpose.ROTATE_180),
    ("like negatives", 1): lambda face, _: ImageOps.invert(face),
    ("covered at the eyes", 10): _painted(10, *_EYES),
    ("covered at the eyes", 60): _painted(60, _BAR),
    ("covered at the mouth", 60): _painted(60, _MOUTH),
    ("covered at the mouth", 220): _painted(220, _MOUTH),
    ("cut into pieces", 16): _in_pieces,
    ("like no faces at all", 0): _clouds,
}
"""By words and strength. Kinds that a camera, a crop or a broken pipeline brings about."""
