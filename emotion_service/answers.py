"""From the bytes of pictures to the bodies of answers: decode, run the model, shape the result."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from emotion_assets.core.classifier import Classifier
from emotion_assets.core.emotions import EMOTIONS
from emotion_assets.core.errors import PictureError
from emotion_assets.core.images import DecodedPicture, decode_picture
from emotion_assets.core.logged_values import features_of

_LOGGED = ("prediction_id", "model_version", "emotion", "probabilities", "features")


@dataclass(frozen=True, slots=True)
class Answered:
    """A picture's answer, and what the log needs beside it."""

    body: dict[str, Any]
    content: bytes
    format: str

    def record(self) -> dict[str, Any]:
        """Return the record for the prediction log."""
        return {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            **{name: self.body[name] for name in _LOGGED},
            "picture_sha256": hashlib.sha256(self.content).hexdigest(),
        }


def answer_pictures(
    model: Classifier, contents: list[bytes], new_id: Callable[[], str], *, with_heatmap: bool = False
) -> list[Answered | PictureError]:
    """Answer for some pictures in one run of the model; a refused one has its error in its place."""
    decoded = [_decoded(content) for content in contents]
    pictures = [picture for picture in decoded if isinstance(picture, DecodedPicture)]
    if not pictures:
        return [picture for picture in decoded if isinstance(picture, PictureError)]
    predictions = model.predict(np.stack([picture.pixels for picture in pictures]), with_maps=with_heatmap)
    results: list[Answered | PictureError] = []
    number = 0
    for content, picture in zip(contents, decoded, strict=True):
        if isinstance(picture, PictureError):
            results.append(picture)
            continue
        body = _body(model.version, new_id(), predictions.probabilities[number], picture)
        if predictions.activation_maps is not None:
            best = EMOTIONS.index(body["emotion"])
            body["heatmap"] = _heatmap(predictions.activation_maps[number, best])
        results.append(Answered(body, content, picture.format))
        number += 1
    return results


def _decoded(content: bytes) -> DecodedPicture | PictureError:
    try:
        return decode_picture(content)
    except PictureError as error:
        return error


def _body(version: str, name: str, raw: npt.NDArray[np.float32], picture: DecodedPicture) -> dict[str, Any]:
    probabilities = raw.astype(np.float64)
    return {
        "prediction_id": name,
        "emotion": EMOTIONS[int(probabilities.argmax())],
        "probabilities": dict(zip(EMOTIONS, (probabilities / probabilities.sum()).tolist(), strict=True)),
        "model_version": version,
        "features": features_of(picture.pixels),
    }


def _heatmap(activation_map: npt.NDArray[np.float32]) -> list[list[float]]:
    """Scale a class activation map (row, column) to 0..1; a place that speaks against the emotion is 0."""
    positive = np.maximum(activation_map.astype(np.float64), 0)
    scaled: list[list[float]] = np.round(positive / max(float(positive.max()), 1e-9), 4).tolist()
    return scaled
