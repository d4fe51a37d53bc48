"""Draw faces, so that everything can be tried without an image of a person.

An emotion is the geometry of brows, eyelids and mouth; identity, pose, light and noise are random.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from emotion_assets.core.classes import EMOTIONS, raw_folder, read_classes
from emotion_assets.core.files import write_atomically
from emotion_assets.core.layout import DataPaths

_CANVAS_PX: Final = 192
_SIZE_PX: Final = 96
_JPEG_QUALITY: Final = 90

# At difficulty 1.
_MAX_SUBTLETY: Final = 0.7
_MAX_MIXTURE: Final = 0.45
_LABEL_NOISE: Final = 0.06


class _Expression(NamedTuple):
    """Mean geometry of an emotion, in units of the head's half height."""

    brow_height: float
    brow_slant: float  # above 0 the inner ends are low
    eye_opening: float
    mouth_curve: float  # above 0 the corners are up
    mouth_opening: float
    mouth_width: float


_EXPRESSIONS: Final = {
    "angry": _Expression(0.33, 0.13, 0.07, -0.10, 0.03, 0.30),
    "fear": _Expression(0.46, -0.11, 0.15, -0.06, 0.10, 0.34),
    "happy": _Expression(0.42, -0.01, 0.08, 0.17, 0.08, 0.40),
    "sad": _Expression(0.39, -0.13, 0.06, -0.15, 0.01, 0.26),
    "surprise": _Expression(0.53, 0.00, 0.16, 0.00, 0.24, 0.19),
}
_OTHER_EXPRESSIONS: Final = {
    "contempt": _Expression(0.40, 0.06, 0.06, 0.04, 0.00, 0.30),
    "disgust": _Expression(0.34, 0.07, 0.03, -0.12, 0.12, 0.36),
    "neutral": _Expression(0.43, 0.00, 0.10, 0.02, 0.02, 0.30),
}
_LOWEST: Final = _Expression(0.30, -0.16, 0.02, -0.20, 0.00, 0.16)
_HIGHEST: Final = _Expression(0.58, 0.16, 0.18, 0.20, 0.26, 0.44)
"""Limits of the expressions that stand for classes without one of their own."""
_SPREAD: Final = _Expression(0.03, 0.03, 0.02, 0.035, 0.025, 0.03)


def draw_face(
    emotion: str,
    rng: np.random.Generator,
    *,
    difficulty: float = 0.0,
    is_dim: bool = False,
    emotions: Sequence[str] = EMOTIONS,
) -> bytes:
    """Draw one face and return it as a grayscale JPEG of 96×96 pixels.

    At a difficulty of 0 expressions are full; up to 1, they become subtle and mixed with those of `emotions`. A dim
    face is drawn as another source would: darker, softer and noisier.
    """
    face = _sample_expression(emotion, rng, difficulty, emotions)
    image = Image.fromarray(_background(rng))
    _draw(ImageDraw.Draw(image), face, rng)
    image = image.rotate(rng.normal(0, 7), Image.Resampling.BILINEAR)
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(2.5, 4) if is_dim else rng.uniform(0.5, 1.5)))
    values = np.asarray(image.resize((_SIZE_PX, _SIZE_PX), Image.Resampling.BOX), dtype=np.float64)
    x, y = np.meshgrid(np.linspace(-1, 1, _SIZE_PX), np.linspace(-1, 1, _SIZE_PX))
    light = 1 + rng.normal(0, 0.2) * x + rng.normal(0, 0.15) * y
    values = values * light * (0.45 if is_dim else 1) + rng.normal(0, rng.uniform(2, 10), values.shape)
    return _encode_jpeg(values)


def draw_frame(emotion: str, subject: int, number: int, *, movement: float = 1.0) -> bytes:
    """Draw one frame of the recording of a person, as a grayscale JPEG of 96×96 pixels.

    Expression, pose, light and noise vary with `number`. `movement` scales that of the head: at 1, its standard
    deviation is 3 degrees and 3 pixels.
    """
    identity, rng = np.random.default_rng(subject), np.random.default_rng((subject, number, *emotion.encode()))
    face = _Expression(*(_mean_expression(emotion) + rng.normal(0, _SPREAD) / 2).tolist())
    image = Image.fromarray(_background(identity))
    _draw(ImageDraw.Draw(image), face, identity)
    angle, right, down = rng.normal(0, 3 * movement, 3)
    image = image.rotate(angle, Image.Resampling.BILINEAR, translate=(int(right), int(down)))
    values = np.asarray(image.resize((_SIZE_PX, _SIZE_PX), Image.Resampling.BOX), dtype=np.float64)
    values = values * (1 + rng.normal(0, 0.1)) + rng.normal(0, 4, values.shape)
    return _encode_jpeg(values)


def _encode_jpeg(values: npt.NDArray[np.float64]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def draw_dataset(paths: DataPaths, *, num_per_class: int, seed: int, difficulty: float = 0.0) -> int:
    """Draw faces into `raw/<Class>/demo/` and dim ones into `external/demo/`; return the number of labelled faces.

    The classes are those of `classes.yaml`. With a difficulty, a few faces get a wrong label, as in public data sets.
    Existing files are kept.
    """
    emotions = read_classes(paths.classes).names
    for index, emotion in enumerate(emotions):
        for number in range(num_per_class):
            path = paths.raw / raw_folder(emotion) / "demo" / f"{emotion}_{seed}_{number:05}.jpg"
            if not path.exists():
                rng = np.random.default_rng((seed, index, number))
                is_mislabelled = difficulty > 0 and rng.random() < _LABEL_NOISE * difficulty
                drawn = str(rng.choice(emotions)) if is_mislabelled else emotion
                write_atomically(path, draw_face(drawn, rng, difficulty=difficulty, emotions=emotions))
    for number in range(num_per_class):
        path = paths.external / "demo" / f"face_{seed}_{number:05}.jpg"
        if not path.exists():
            rng = np.random.default_rng((seed, len(emotions), number))
            emotion = emotions[number % len(emotions)]
            face = draw_face(emotion, rng, difficulty=difficulty, is_dim=True, emotions=emotions)
            write_atomically(path, face)
    return num_per_class * len(emotions)


def _mean_expression(emotion: str) -> npt.NDArray[np.float64]:
    """Return the mean geometry of a class; one without an expression of its own gets one by its name."""
    known = _EXPRESSIONS | _OTHER_EXPRESSIONS
    if emotion in known:
        return np.array(known[emotion])
    rng = np.random.default_rng(list(emotion.encode()))
    return np.asarray(rng.uniform(_LOWEST, _HIGHEST))


def _sample_expression(
    emotion: str, rng: np.random.Generator, difficulty: float, emotions: Sequence[str]
) -> _Expression:
    """Return an expression between neutral and full, mixed with another one, with individual variation."""
    mean = _mean_expression(emotion)
    if difficulty > 0:
        other = _mean_expression(str(rng.choice(emotions)))
        intensity = rng.uniform(1 - _MAX_SUBTLETY * difficulty, 1)
        weight = rng.uniform(0, _MAX_MIXTURE * difficulty)
        neutral = np.mean(list(_EXPRESSIONS.values()), axis=0)
        mean = neutral + intensity * ((1 - weight) * mean + weight * other - neutral)
    return _Expression(*(mean + rng.normal(0, _SPREAD)).tolist())


def _background(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return a blurred background, uint8 (row, column)."""
    coarse = rng.uniform(10, 245, (rng.integers(2, 6), rng.integers(2, 6))).astype(np.float32)
    image = Image.fromarray(coarse).resize((_CANVAS_PX, _CANVAS_PX), Image.Resampling.BICUBIC)
    return np.asarray(np.clip(np.asarray(image), 0, 255), dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class _Head:
    """Where a head is: turns positions in units of its half height into those of the canvas."""

    unit: float
    x: float
    y: float
    turn: float
    """Sideways shift of the features, as when the head is turned a little."""

    def at(self, x: float, y: float) -> tuple[float, float]:
        return self.x + (x + self.turn) * self.unit, self.y - y * self.unit

    def oval(self, draw: ImageDraw.ImageDraw, x: float, y: float, width: float, height: float, fill: float) -> None:
        (left, top), (right, bottom) = self.at(x - width, y + height), self.at(x + width, y - height)
        draw.ellipse((left, top, right, bottom), fill=int(np.clip(fill, 0, 255)))


def _draw(draw: ImageDraw.ImageDraw, face: _Expression, rng: np.random.Generator) -> None:
    middle = _CANVAS_PX / 2
    head = _Head(
        _CANVAS_PX * rng.uniform(0.36, 0.48), middle + rng.normal(0, 9), middle + rng.normal(0, 9), rng.normal(0, 0.05)
    )
    skin, hair, width = rng.uniform(95, 230), rng.uniform(5, 200), rng.uniform(0.66, 0.92)
    _draw_hair_and_head(draw, head, skin, hair, width, rng)
    _draw_eyes(draw, head, face, skin, hair, rng)
    draw.line((head.at(0, 0.1), head.at(rng.normal(0, 0.04) - 0.06, -0.15), head.at(0.05, -0.18)), int(skin * 0.7), 3)
    if rng.random() < 0.25:
        head.oval(draw, 0, -0.62, width * 0.75, 0.33, hair)
    _draw_mouth(draw, head, face, skin)


def _draw_hair_and_head(
    draw: ImageDraw.ImageDraw, head: _Head, skin: float, hair: float, width: float, rng: np.random.Generator
) -> None:
    steady = _Head(head.unit, head.x, head.y, 0)
    shoulders = [steady.at(x, y) for x, y in ((-1.6, -2.2), (-1.1, -1.1), (1.1, -1.1), (1.6, -2.2))]
    draw.polygon(shoulders, fill=int(rng.uniform(5, 250)))
    length = rng.uniform(-0.4, 0.35)
    steady.oval(draw, rng.normal(0, 0.06), 0.15 + length / 2, width * rng.uniform(1.02, 1.3), 1.05 - length / 2, hair)
    steady.oval(draw, 0, -0.04, width, 0.94, skin)
    if rng.random() < 0.5:
        fringe = [
            steady.at(x * width, y) for x, y in ((-0.95, 0.5), (rng.uniform(-1, 1), 0.95), (0.95, 0.5), (0, 0.98))
        ]
        draw.polygon(fringe, fill=int(hair))


def _draw_eyes(
    draw: ImageDraw.ImageDraw, head: _Head, face: _Expression, skin: float, hair: float, rng: np.random.Generator
) -> None:
    spacing, eye_width, dark = rng.uniform(0.28, 0.38), rng.uniform(0.11, 0.17), rng.uniform(5, 50)
    opening = max(0.02, face.eye_opening)
    thickness = max(3, int(head.unit * rng.uniform(0.04, 0.09)))
    brow = min(hair, skin * 0.6)
    gaze = rng.normal(0, 0.03)
    for side in (-1, 1):
        head.oval(draw, side * spacing, 0.2, eye_width, opening, skin + 45)
        head.oval(draw, side * spacing + gaze, 0.2, min(0.07, opening), min(0.07, opening), dark)
        inner = head.at(side * (spacing - eye_width * 1.1), face.brow_height + 0.05 - face.brow_slant)
        outer = head.at(side * (spacing + eye_width * 1.1), face.brow_height + 0.05 + face.brow_slant)
        draw.line((inner, outer), fill=int(brow), width=thickness)
    if rng.random() < 0.2:
        for side in (-1, 1):
            corners = (*head.at(side * spacing - 0.24, 0.36), *head.at(side * spacing + 0.24, 0.04))
            draw.ellipse(corners, outline=int(dark), width=3)


def _draw_mouth(draw: ImageDraw.ImageDraw, head: _Head, face: _Expression, skin: float) -> None:
    across = np.linspace(-1, 1, 17)
    corner = face.mouth_curve * (across**2 - 0.5)
    opening = max(0.01, face.mouth_opening) * np.sqrt(np.maximum(0, 1 - across**2))
    upper = [head.at(x * face.mouth_width, -0.45 + y + g) for x, y, g in zip(across, corner, opening, strict=True)]
    lower = [head.at(x * face.mouth_width, -0.45 + y - g) for x, y, g in zip(across, corner, opening, strict=True)]
    draw.polygon([*upper, *reversed(lower)], fill=20)
    draw.line([*upper, *reversed(lower), upper[0]], fill=int(skin * 0.5), width=4)
