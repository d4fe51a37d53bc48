"""The state of a worker process: its model runner, metrics, logs and labels."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

from emotion_service.feedback import FeedbackStore
from emotion_service.image_log import ImageLog
from emotion_service.inference import PredictionResult, Predictor
from emotion_service.metrics import Metrics
from emotion_service.prediction_log import PredictionLog
from emotion_service.settings import Settings
from emotion_service.storage import open_storage

_M_MMAP_THRESHOLD: Final = -3
_MMAP_THRESHOLD_BYTES: Final = 2**20


class WorkerState:
    """Create it once in the worker process itself: threads and metrics do not survive a fork."""

    def __init__(self, settings: Settings) -> None:
        """Open everything below the data root, which may be empty or missing."""
        release_large_blocks()
        paths, storage = settings.paths, open_storage(settings)
        # Files can be appended to, objects cannot.
        objects = storage if settings.remote_root else None
        self.metrics = Metrics()
        self.feedback = FeedbackStore(storage)
        self.predictor = Predictor(self.feedback.new_id)
        self._prediction_log = PredictionLog(paths.predictions, self._count_records, objects)
        # It also deletes what an earlier service stored, so it runs even if no images are stored now.
        self._image_log = ImageLog(paths.image_log, settings.image_retention_days, self._count_records, objects)
        self._stores_images = settings.store_images

    def record_prediction(self, result: PredictionResult) -> None:
        """Log and count a prediction."""
        prediction = result.prediction
        self._prediction_log.append(result.record())
        if self._stores_images:
            self._image_log.append(prediction.prediction_id, result.format, result.content)
        self.metrics.predictions.labels(prediction.emotion, prediction.model_version).inc()
        self.metrics.confidence.observe(prediction.probabilities[prediction.emotion])

    def close(self) -> None:
        """Write what is queued."""
        self._prediction_log.close()
        self._image_log.close()
        self.metrics.close()

    def _count_records(self, result: str, number: int) -> None:
        self.metrics.records.labels(result).inc(number)


def release_large_blocks() -> None:
    """Make glibc return large freed blocks to the system at once.

    By default it raises its threshold with each large block: after 200 large images the memory of a worker had grown by
    200 MB, with a fixed threshold by 72 MB.
    """
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL("libc.so.6").mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
