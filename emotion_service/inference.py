"""From the bytes of images to the bodies of answers: decode, run the model, shape the result."""

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

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.classifier import Classifier
from emotion_assets.core.errors import ImageError
from emotion_assets.core.features import image_features
from emotion_assets.core.images import Pixels, decode_gray, decode_image, face_pixels
from emotion_service.face_detection import WHOLE, WORKING_SIDE_PX, FaceDetector, Region, crop_region

_LOGGED = ("prediction_id", "model_version", "emotion", "probabilities", "features")


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """What a client asked for beside the emotion."""

    with_heatmap: bool = False
    detect_face: bool = False
    """Whether the image may be an image, in which the face has to be found first."""


class DeadlineExceededError(Exception):
    """Nobody waits for these answers any more."""


@dataclass(frozen=True, slots=True)
class _Decoded:
    """What the network is shown of an image, and a file of just that, for people who label it."""

    pixels: Pixels
    region: Region
    content: bytes
    format: str


@dataclass(frozen=True, slots=True)
class PredictionResult:
    """An image's answer, and what the log needs beside it."""

    body: dict[str, Any]
    content: bytes
    """A file of what the network was shown."""
    format: str
    image_sha256: str
    """Of what was sent."""

    def record(self) -> dict[str, Any]:
        """Return the record for the prediction log."""
        return {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            **{name: self.body[name] for name in _LOGGED},
            "image_sha256": self.image_sha256,
        }


class Predictor:
    """Answers for images; one for each worker, used from several threads."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        """Name predictions by `new_id`."""
        self._new_id = new_id
        self._detector = FaceDetector()

    def predict(
        self,
        model: Classifier,
        contents: list[bytes],
        options: PredictOptions,
        deadline: float,
        *,
        fast_path_only: bool = False,
    ) -> list[PredictionResult | ImageError]:
        """Answer for some images in one run of the model; a rejected one has its error in its place.

        Args:
            model: the model to ask.
            contents: the bytes of each image.
            wishes: what is asked for.
            deadline: on the clock of `time.monotonic`; after it no further image is begun.
            fast_path_only: whether to give up on whole images that take more than a millisecond or so to decode.

        Raises:
            NeedsWorkerThreadError: there is such an image, and `fast_path_only`.
            DeadlineExceededError: the deadline has passed.
        """
        decoded = []
        for content in contents:
            if time.monotonic() > deadline:
                raise DeadlineExceededError
            decoded.append(self._decoded(content, options, fast_path_only=fast_path_only))
        images = [image for image in decoded if isinstance(image, _Decoded)]
        if not images:
            return [image for image in decoded if isinstance(image, ImageError)]
        predictions = model.predict(np.stack([image.pixels for image in images]), with_maps=options.with_heatmap)
        results: list[PredictionResult | ImageError] = []
        number = 0
        for content, image in zip(contents, decoded, strict=True):
            if isinstance(image, ImageError):
                results.append(image)
                continue
            body = _body(model.version, self._new_id(), predictions.probabilities[number], image.pixels)
            if options.detect_face:
                body["face"] = dataclasses.asdict(image.region)
            if predictions.activation_maps is not None:
                best = EMOTIONS.index(body["emotion"])
                body["heatmap"] = _heatmap(predictions.activation_maps[number, best])
            digest = hashlib.sha256(content).hexdigest()
            results.append(PredictionResult(body, image.content, image.format, digest))
            number += 1
        return results

    def _decoded(self, content: bytes, options: PredictOptions, *, fast_path_only: bool) -> _Decoded | ImageError:
        try:
            if not options.detect_face:
                image = decode_image(content, fast_path_only=fast_path_only)
                return _Decoded(image.pixels, WHOLE, content, image.format)
            decoded = decode_gray(content, WORKING_SIDE_PX)
            region = self._detector.region(decoded.image)
        except ImageError as error:
            return error
        face = crop_region(decoded.image, region)
        if region == WHOLE:
            return _Decoded(face_pixels(face), region, content, decoded.format)
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
        "features": image_features(pixels),
    }


def _heatmap(activation_map: npt.NDArray[np.float32]) -> list[list[float]]:
    """Scale a class activation map (row, column) to 0..1; a place that speaks against the emotion is 0."""
    positive = np.maximum(activation_map.astype(np.float64), 0)
    scaled: list[list[float]] = np.round(positive / max(float(positive.max()), 1e-9), 4).tolist()
    return scaled
