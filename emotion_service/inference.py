"""From the bytes of images to predictions: decode, run the model, describe the result."""

from __future__ import annotations

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
from emotion_assets.core.errors import ImageError
from emotion_assets.core.features import image_features
from emotion_assets.core.images import Pixels, decode_gray, decode_image, face_pixels
from emotion_service.face_detection import WHOLE, WORKING_SIDE_PX, FaceDetector, crop_region
from emotion_service.schemas import FaceRegion, Prediction


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """What a client requests besides the emotion."""

    with_heatmap: bool = False
    detect_face: bool = False
    """Whether to find and crop the largest face first."""


class DeadlineExceededError(Exception):
    """The time limit of a request has passed."""


@dataclass(frozen=True, slots=True)
class _FaceImage:
    pixels: Pixels
    region: FaceRegion
    content: bytes
    """A file of just the region, for labelling."""
    format: str


@dataclass(frozen=True, slots=True)
class PredictionResult:
    """The prediction for an image, and what the logs need besides."""

    prediction: Prediction
    content: bytes
    """A file of what the network was given."""
    format: str
    image_sha256: str
    """Of the uploaded bytes."""

    def record(self) -> dict[str, Any]:
        """Return the record for the prediction log."""
        return {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "prediction_id": self.prediction.prediction_id,
            "model_version": self.prediction.model_version,
            "emotion": self.prediction.emotion,
            "probabilities": self.prediction.probabilities,
            "features": self.prediction.features,
            "image_sha256": self.image_sha256,
        }


class Predictor:
    """Predicts emotions of images. Safe to use from several threads."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        """Take the ids of predictions from `new_id`."""
        self._new_id = new_id
        self._detector = FaceDetector()

    def predict(
        self, model: Classifier, contents: list[bytes], options: PredictOptions, deadline: float
    ) -> list[PredictionResult | ImageError]:
        """Predict the emotions of images, given as the bytes of files, in one run of the model.

        No image is decoded after `deadline`, on the clock of `time.monotonic`.

        Returns:
            For each image its prediction, or why it was rejected.

        Raises:
            DeadlineExceededError: the deadline has passed.
        """
        decoded: list[_FaceImage | ImageError] = []
        for content in contents:
            if time.monotonic() > deadline:
                raise DeadlineExceededError
            decoded.append(self._decode(content, options))
        faces = [face for face in decoded if isinstance(face, _FaceImage)]
        if not faces:
            return [error for error in decoded if isinstance(error, ImageError)]
        outputs = model.predict(np.stack([face.pixels for face in faces]), with_maps=options.with_heatmap)
        results: list[PredictionResult | ImageError] = []
        row = 0
        for content, face in zip(contents, decoded, strict=True):
            if isinstance(face, ImageError):
                results.append(face)
                continue
            maps = outputs.activation_maps[row] if outputs.activation_maps is not None else None
            prediction = self._describe(model, outputs.probabilities[row], maps, face, options)
            digest = hashlib.sha256(content).hexdigest()
            results.append(PredictionResult(prediction, face.content, face.format, digest))
            row += 1
        return results

    def _decode(self, content: bytes, options: PredictOptions) -> _FaceImage | ImageError:
        try:
            if not options.detect_face:
                image = decode_image(content)
                return _FaceImage(image.pixels, WHOLE, content, image.format)
            gray = decode_gray(content, WORKING_SIDE_PX)
            region = self._detector.find_region(gray.image)
        except ImageError as error:
            return error
        if region == WHOLE:
            return _FaceImage(face_pixels(gray.image), region, content, gray.format)
        face = crop_region(gray.image, region)
        file = io.BytesIO()
        face.save(file, "PNG", compress_level=1)
        return _FaceImage(face_pixels(face), region, file.getvalue(), "PNG")

    def _describe(
        self,
        model: Classifier,
        outputs: npt.NDArray[np.float32],
        maps: npt.NDArray[np.float32] | None,
        face: _FaceImage,
        options: PredictOptions,
    ) -> Prediction:
        probabilities = outputs.astype(np.float64)
        best = int(probabilities.argmax())
        return Prediction(
            prediction_id=self._new_id(),
            emotion=model.emotions[best],
            probabilities=dict(zip(model.emotions, (probabilities / probabilities.sum()).tolist(), strict=True)),
            model_version=model.version,
            features=image_features(face.pixels),
            face=face.region if options.detect_face else None,
            heatmap=None if maps is None else _scale_heatmap(maps[best]),
        )


def _scale_heatmap(activation_map: npt.NDArray[np.float32]) -> list[list[float]]:
    """Scale a class activation map (row, column) to 0..1; negative evidence becomes 0."""
    positive = np.maximum(activation_map.astype(np.float64), 0)
    scaled: list[list[float]] = np.round(positive / max(float(positive.max()), 1e-9), 4).tolist()
    return scaled
