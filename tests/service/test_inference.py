from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from emotion_assets.core.classifier import Classifier
from emotion_assets.core.errors import EmptyImageError
from emotion_assets.core.images import decode_image
from emotion_service.inference import DeadlineExceededError, PredictionResult, PredictOptions, Predictor


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
