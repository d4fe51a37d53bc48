"""What a worker process has for itself: its counters, its log, its pictures, its labels."""

from __future__ import annotations

from emotion_assets.core.data_root import FEEDBACK, PREDICTIONS
from emotion_service.answers import Answered, Answerer
from emotion_service.feedback import FeedbackBox
from emotion_service.kept_pictures import KeptPictures
from emotion_service.memory import MemoryKeeper
from emotion_service.metrics import Metrics
from emotion_service.prediction_log import PredictionLog
from emotion_service.settings import Settings


class Worker:
    """Made once, in the process itself: threads and counters would not survive a fork."""

    def __init__(self, settings: Settings) -> None:
        """Open everything below the data root; nothing has to be there yet."""
        predictions_dir = settings.data_dir / PREDICTIONS
        self.metrics = Metrics()
        self.box = FeedbackBox(settings.data_dir / FEEDBACK)
        self.answerer = Answerer(self.box.new_id)
        self.memory = MemoryKeeper()
        self.log = PredictionLog(predictions_dir, self._count)
        # Also where none are kept any more: those of before must go in time.
        self._pictures = KeptPictures(predictions_dir, settings.keep_days, self._count)
        self._keeps_pictures = settings.keep_images

    def _count(self, result: str, number: int) -> None:
        self.metrics.records.labels(result).inc(number)

    def note(self, answered: Answered) -> None:
        """Log an answer that is about to be sent, and count it."""
        body = answered.body
        self.log.append(answered.record())
        if self._keeps_pictures:
            self._pictures.append(body["prediction_id"], answered.format, answered.content)
        self.metrics.predictions.labels(body["emotion"], body["model_version"]).inc()
        self.metrics.confidence.observe(body["probabilities"][body["emotion"]])

    def close(self) -> None:
        """Write the rest of the log and of the pictures."""
        self.log.close()
        self._pictures.close()
        self.memory.close()
        self.metrics.close()
