"""From the bytes of pictures to the bodies of answers: decode, run the model, shape the result."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from emotion_assets.core.classifier import Classifier
from emotion_assets.core.emotions import EMOTIONS
from emotion_assets.core.errors import PictureError
from emotion_assets.core.images import Pixels, decode_grey, decode_picture, face_pixels
from emotion_assets.core.logged_values import features_of
from emotion_service.faces import WHOLE, WORKING_SIDE_PX, FaceFinder, Region, cut

_LOGGED = ("prediction_id", "model_version", "emotion", "probabilities", "features")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a client asked for beside the emotion."""

    with_heatmap: bool = False
    finds_face: bool = False
    """Whether the picture may be a photograph, in which the face has to be found first."""


class TooLateError(Exception):
    """Nobody waits for these answers any more."""


@dataclass(frozen=True, slots=True)
class _Decoded:
    """What the network is shown of a picture, and a file of just that, for people who label it."""

    pixels: Pixels
    region: Region
    content: bytes
    format: str


@dataclass(frozen=True, slots=True)
class Answered:
    """A picture's answer, and what the log needs beside it."""

    body: dict[str, Any]
    content: bytes
    """A file of what the network was shown."""
    format: str
    picture_sha256: str
    """Of what was sent."""

    def record(self) -> dict[str, Any]:
        """Return the record for the prediction log."""
        return {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            **{name: self.body[name] for name in _LOGGED},
            "picture_sha256": self.picture_sha256,
        }


class Answerer:
    """Answers for pictures; one for each worker, used from several threads."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        """Name predictions by `new_id`."""
        self._new_id = new_id
        self._finder = FaceFinder()

    def answer(
        self, model: Classifier, contents: list[bytes], wishes: Wishes, deadline: float, *, is_hurried: bool = False
    ) -> list[Answered | PictureError]:
        """Answer for some pictures in one run of the model; a refused one has its error in its place.

        Args:
            model: the model to ask.
            contents: the bytes of each picture.
            wishes: what is asked for.
            deadline: on the clock of `time.monotonic`; after it no further picture is begun.
            is_hurried: whether to give up on whole pictures that take more than a millisecond or so to decode.

        Raises:
            SlowPictureError: there is such a picture, and `is_hurried`.
            TooLateError: the deadline has passed.
        """
        decoded = []
        for content in contents:
            if time.monotonic() > deadline:
                raise TooLateError
            decoded.append(self._decoded(content, wishes, is_hurried=is_hurried))
        pictures = [picture for picture in decoded if isinstance(picture, _Decoded)]
        if not pictures:
            return [picture for picture in decoded if isinstance(picture, PictureError)]
        predictions = model.predict(np.stack([picture.pixels for picture in pictures]), with_maps=wishes.with_heatmap)
        results: list[Answered | PictureError] = []
        number = 0
        for content, picture in zip(contents, decoded, strict=True):
            if isinstance(picture, PictureError):
                results.append(picture)
                continue
            body = _body(model.version, self._new_id(), predictions.probabilities[number], picture.pixels)
            if wishes.finds_face:
                body["face"] = dataclasses.asdict(picture.region)
            if predictions.activation_maps is not None:
                best = EMOTIONS.index(body["emotion"])
                body["heatmap"] = _heatmap(predictions.activation_maps[number, best])
            digest = hashlib.sha256(content).hexdigest()
            results.append(Answered(body, picture.content, picture.format, digest))
            number += 1
        return results

    def _decoded(self, content: bytes, wishes: Wishes, *, is_hurried: bool) -> _Decoded | PictureError:
        try:
            if not wishes.finds_face:
                picture = decode_picture(content, is_hurried=is_hurried)
                return _Decoded(picture.pixels, WHOLE, content, picture.format)
            photograph = decode_grey(content, WORKING_SIDE_PX)
            region = self._finder.region(photograph.image)
        except PictureError as error:
            return error
        face = cut(photograph.image, region)
        if region == WHOLE:
            return _Decoded(face_pixels(face), region, content, photograph.format)
        file = io.BytesIO()
        face.save(file, "PNG", compress_level=1)
        return _Decoded(face_pixels(face), region, file.getvalue(), "PNG")


def _body(version: str, name: str, raw: npt.NDArray[np.float32], pixels: Pixels) -> dict[str, Any]:
    probabilities = raw.astype(np.float64)
    return {
        "prediction_id": name,
        "emotion": EMOTIONS[int(probabilities.argmax())],
        "probabilities": dict(zip(EMOTIONS, (probabilities / probabilities.sum()).tolist(), strict=True)),
        "model_version": version,
        "features": features_of(pixels),
    }


def _heatmap(activation_map: npt.NDArray[np.float32]) -> list[list[float]]:
    """Scale a class activation map (row, column) to 0..1; a place that speaks against the emotion is 0."""
    positive = np.maximum(activation_map.astype(np.float64), 0)
    scaled: list[list[float]] = np.round(positive / max(float(positive.max()), 1e-9), 4).tolist()
    return scaled
