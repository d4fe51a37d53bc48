from __future__ import annotations

import time
from pathlib import Path

import pytest

from emotion_assets.core.classifier import Classifier
from emotion_service import worker_state
from emotion_service.inference import PredictionResult, PredictOptions
from emotion_service.settings import Settings
from emotion_service.worker_state import WorkerState, release_large_blocks
from tests.service.conftest import records_below


@pytest.mark.parametrize("stores_images", [False, True])
def test_a_prediction_is_logged_counted_and_stored(
    bundle_dir: Path, tmp_path: Path, face: bytes, stores_images: bool
) -> None:
    """The image is stored only if the settings say so."""
    worker = WorkerState(Settings(data_dir=tmp_path, store_images=stores_images))
    (result,) = worker.predictor.predict(Classifier(bundle_dir), [face], PredictOptions(), time.monotonic() + 60)
    assert isinstance(result, PredictionResult)
    worker.record_prediction(result)
    worker.close()

    assert [record["prediction_id"] for record in records_below(tmp_path)] == [result.prediction.prediction_id]
    assert "emotion_confidence_count 1.0" in worker.metrics.text().decode()
    assert len(list((tmp_path / "predictions" / "images").rglob("*.jpeg"))) == stores_images


def test_without_glibc_the_heap_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """On other systems there is no such setting."""

    def fail(_: str) -> None:
        raise OSError

    monkeypatch.setattr(worker_state.ctypes, "CDLL", fail)
    release_large_blocks()
