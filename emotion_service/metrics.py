"""Prometheus metrics at `/metrics`. Label values come from fixed sets, so that a scanner cannot multiply them.

With several workers each writes its numbers to files in PROMETHEUS_MULTIPROC_DIR, which BentoML sets, and whichever
worker is scraped adds them up.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

_SECONDS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_CONFIDENCES: Final = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
_DIRECTORY_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """The service's metrics. Create them once in each worker, after any fork."""

    def __init__(self) -> None:
        """Start at zero."""
        self._directory = _service_directory()
        registry = self._registry = CollectorRegistry()
        self.requests = Counter("emotion_requests", "HTTP requests", ["route", "method", "status"], registry=registry)
        self.seconds = Histogram(
            "emotion_request_seconds", "Time to respond", ["route"], buckets=_SECONDS, registry=registry
        )
        self.in_progress = Gauge(
            "emotion_requests_in_progress", "Requests in progress", registry=registry, multiprocess_mode="livesum"
        )
        self.predictions = Counter(
            "emotion_predictions", "Predictions", ["emotion", "model_version"], registry=registry
        )
        self.confidence = Histogram(
            "emotion_confidence", "Probability of the predicted emotion", buckets=_CONFIDENCES, registry=registry
        )
        self.errors = Counter("emotion_errors", "Rejected requests and images", ["code"], registry=registry)
        self.records = Counter(
            "emotion_log_records", "Records and stored images, written or lost", ["result"], registry=registry
        )
        self.feedback = Counter("emotion_feedback", "Labels given by people", ["emotion"], registry=registry)
        self.workers = Gauge(
            "emotion_model_workers",
            "Workers that serve a model version",
            ["model_version"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        for result in ("written", "lost", "image_written", "image_lost"):
            self.records.labels(result)
        self._version = ""

    def record_model(self, version: str) -> None:
        """Set the model version that this worker serves."""
        if self._version:
            self.workers.labels(self._version).set(0)
        self._version = version
        self.workers.labels(version).set(1)

    def text(self) -> bytes:
        """Return the numbers of all workers in Prometheus' text format."""
        if not self._directory:
            return generate_latest(self._registry)
        for path in self._directory.glob("gauge_live*_*.db"):
            pid = int(path.stem.rpartition("_")[2])
            if not psutil.pid_exists(pid):  # it was killed before `close`
                mark_process_dead(pid)  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    def close(self) -> None:
        """Remove this worker's gauges from the sums."""
        if self._directory:
            mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]


def _service_directory() -> Path | None:
    """Give the workers of this service a directory of their own, and remove those of services that have ended.

    BentoML gives every service of a BENTOML_HOME the same directory, and empties it when one starts.
    """
    shared = os.environ.get(_DIRECTORY_VARIABLE)
    if not shared:
        return None
    directory = Path(f"{shared}-{os.getppid()}")
    for other in directory.parent.glob(f"{Path(shared).name}-*"):
        pid = other.name.rpartition("-")[2]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(other, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)
    os.environ[_DIRECTORY_VARIABLE] = str(directory)
    mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]  # an earlier process may have had the same pid
    return directory
