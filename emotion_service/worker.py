"""What a worker process has for itself: its counters, its log, its images, its labels."""

from __future__ import annotations

from emotion_assets.core.layout import FEEDBACK, PREDICTIONS
from emotion_service.feedback import FeedbackStore
from emotion_service.heap import HeapTrimmer
from emotion_service.image_log import ImageLog
from emotion_service.inference import PredictionResult, Predictor
from emotion_service.metrics import Metrics
from emotion_service.prediction_log import PredictionLog
from emotion_service.settings import Settings


class Worker:
    """Made once, in the process itself: threads and counters would not survive a fork."""

    def __init__(self, settings: Settings) -> None:
        """Open everything below the data root; nothing has to be there yet."""
        predictions_dir = settings.data_dir / PREDICTIONS
        self.metrics = Metrics()
        self.box = FeedbackStore(settings.data_dir / FEEDBACK)
        self.answerer = Predictor(self.box.new_id)
        self.memory = HeapTrimmer()
        self.log = PredictionLog(predictions_dir, self._count)
        # Also where none are kept any more: those of before must go in time.
        self._images = ImageLog(predictions_dir, settings.keep_days, self._count)
        self._stores_images = settings.keep_images

    def _count(self, result: str, number: int) -> None:
        self.metrics.records.labels(result).inc(number)

    def note(self, answered: PredictionResult) -> None:
        """Log an answer that is about to be sent, and count it."""
        body = answered.body
        self.log.append(answered.record())
        if self._stores_images:
            self._images.append(body["prediction_id"], answered.format, answered.content)
        self.metrics.predictions.labels(body["emotion"], body["model_version"]).inc()
        self.metrics.confidence.observe(body["probabilities"][body["emotion"]])

    def close(self) -> None:
        """Write the rest of the log and of the images."""
        self.log.close()
        self._images.close()
        self.memory.close()
        self.metrics.close()
