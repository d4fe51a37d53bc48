from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import pytest

from emotion_assets.core.classifier import Classifier
from emotion_assets.core.errors import EmptyImageError
from emotion_assets.core.images import decode_image
from emotion_service.inference import DeadlineExceededError, PredictionResult, PredictOptions, Predictor
from emotion_service.schemas import FaceRegion


@pytest.fixture(scope="module")
def model(bundle_dir: Path) -> Classifier:
    return Classifier(bundle_dir)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(iter(map(str, range(1000))).__next__)


def test_results_follow_the_order_of_the_images(predictor: Predictor, model: Classifier, face: bytes) -> None:
    """A rejected image has its error at its position; the record repeats the prediction."""
    deadline = time.monotonic() + 60
    first, second, third = predictor.predict(model, [face, b"", face], PredictOptions(), deadline)

    assert isinstance(second, EmptyImageError)
    assert isinstance(first, PredictionResult)
    assert isinstance(third, PredictionResult)
    assert first.prediction.prediction_id != third.prediction.prediction_id
    assert first.record().items() >= first.prediction.model_dump(exclude={"face", "heatmap"}).items()
    assert first.prediction.face is first.prediction.heatmap is None


def test_probabilities_are_those_of_the_model(predictor: Predictor, model: Classifier, face: bytes) -> None:
    """The service adds nothing to what the classifier computes."""
    (result,) = predictor.predict(model, [face], PredictOptions(with_heatmap=True), time.monotonic() + 60)
    expected = model.predict(decode_image(face).pixels[None]).probabilities[0]

    assert isinstance(result, PredictionResult)
    np.testing.assert_allclose(list(result.prediction.probabilities.values()), expected, rtol=1e-6)
    assert result.prediction.heatmap


def test_after_the_deadline_no_image_is_decoded(predictor: Predictor, model: Classifier, face: bytes) -> None:
    with pytest.raises(DeadlineExceededError):
        predictor.predict(model, [face], PredictOptions(), time.monotonic() - 1)


def test_the_heatmap_is_that_of_the_emotion(
    predictor: Predictor, model: Classifier, faces: list[tuple[str, bytes]]
) -> None:
    """Scaled to 1, without negative evidence."""
    contents = [content for _, content in faces]
    found = predictor.predict(model, contents, PredictOptions(with_heatmap=True), time.monotonic() + 60)
    pixels = np.stack([decode_image(content).pixels for content in contents])
    outputs = model.predict(pixels, with_maps=True)

    assert outputs.activation_maps is not None
    for result, probabilities, maps in zip(found, outputs.probabilities, outputs.activation_maps, strict=True):
        assert isinstance(result, PredictionResult)
        expected = np.maximum(maps[probabilities.argmax()], 0)
        np.testing.assert_allclose(result.prediction.heatmap, expected / max(expected.max(), 1e-9), atol=1e-3)


def test_the_network_and_the_log_have_the_face_alone(
    predictor: Predictor, model: Classifier, face: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stored file gives the same prediction; the hash is that of the upload."""
    region = FaceRegion(left=0.25, top=0.25, right=0.75, bottom=0.75)
    monkeypatch.setattr("emotion_service.face_detection.FaceDetector.find_region", lambda *_: region)

    (result,) = predictor.predict(model, [face], PredictOptions(detect_face=True), time.monotonic() + 60)
    assert isinstance(result, PredictionResult)
    (again,) = predictor.predict(model, [result.content], PredictOptions(), time.monotonic() + 60)

    assert isinstance(again, PredictionResult)
    assert result.prediction.face == region
    assert (result.format, result.content[:4]) == ("PNG", b"\x89PNG")
    assert result.prediction.features == again.prediction.features
    assert result.prediction.probabilities == pytest.approx(again.prediction.probabilities)
    assert result.image_sha256 == hashlib.sha256(face).hexdigest()
    (whole,) = predictor.predict(model, [face], PredictOptions(), time.monotonic() + 60)
    assert isinstance(whole, PredictionResult)
    assert result.prediction.features != whole.prediction.features
