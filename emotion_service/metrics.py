"""What Prometheus reads at `/metrics`. Labels come from fixed sets, so a scanner cannot make them grow.

With several workers each keeps its numbers in files (PROMETHEUS_MULTIPROC_DIR, set by the server), and whichever
worker is asked adds all of them up.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

MEDIA_TYPE: Final = CONTENT_TYPE_LATEST

_SECONDS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_CONFIDENCES: Final = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
_DIRECTORY_KEY: Final = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """The service's counters.

    Made once, in the worker itself: before a fork they would be lost, and a second one would write to the same files.
    """

    def __init__(self) -> None:
        """Start at zero, and forget live numbers of workers that were killed."""
        registry = self._registry = CollectorRegistry()
        if _DIRECTORY_KEY in os.environ:
            os.environ[_DIRECTORY_KEY] = _own_directory(os.environ[_DIRECTORY_KEY])
            # By default the operating system is asked for the process's number at every count: eight times a request.
            number = os.getpid()
            values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]
        self._drop_dead_workers()
        self.requests = Counter(
            "emotion_requests", "Answered requests", ["route", "method", "status"], registry=registry
        )
        self.seconds = Histogram(
            "emotion_request_seconds", "Time to answer", ["route"], buckets=_SECONDS, registry=registry
        )
        self.in_progress = Gauge(
            "emotion_requests_in_progress", "Requests being answered", registry=registry, multiprocess_mode="livesum"
        )
        self.predictions = Counter(
            "emotion_predictions", "Answered images", ["emotion", "model_version"], registry=registry
        )
        self.confidence = Histogram(
            "emotion_confidence", "Probability of the answer", buckets=_CONFIDENCES, registry=registry
        )
        self.rejections = Counter("emotion_rejections", "Rejected images and requests", ["code"], registry=registry)
        self.records = Counter(
            "emotion_log_records",
            "Records and kept images, written or lost",
            ["result"],
            registry=registry,
        )
        self.feedback = Counter("emotion_feedback", "Labels given by people", ["emotion"], registry=registry)
        self.workers = Gauge(
            "emotion_model_workers",
            "Workers that serve a version",
            ["model_version"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        for result in ("written", "lost", "image_written", "image_lost"):
            self.records.labels(result)
        self._version = ""

    def record_model(self, version: str) -> None:
        """Show that this worker serves `version` from now on."""
        if self._version:
            self.workers.labels(self._version).set(0)
        self._version = version
        self.workers.labels(version).set(1)

    def text(self) -> bytes:
        """Return all workers' numbers in Prometheus' text format."""
        if _DIRECTORY_KEY not in os.environ:
            return generate_latest(self._registry)
        self._drop_dead_workers()
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)

    def close(self) -> None:
        """Take this worker's live numbers out of the sums."""
        if _DIRECTORY_KEY in os.environ:
            mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]

    @staticmethod
    def _drop_dead_workers() -> None:
        directory = os.environ.get(_DIRECTORY_KEY)
        for path in Path(directory).glob("gauge_live*_*.db") if directory else ():
            number = path.stem.rpartition("_")[2]
            if number.isdecimal() and not Path(f"/proc/{number}").exists() and Path("/proc/self").exists():
                path.unlink(missing_ok=True)


def _own_directory(given: str) -> str:
    """Make a directory for the workers of this service alone, and remove those of services that have ended.

    Every service with the same BENTOML_HOME is given the same one, and empties it when it starts.
    """
    parent = _identity_of(os.getppid())
    if not parent:
        return given
    for path in Path(given).parent.glob(f"{Path(given).name}-*-*"):
        number = path.name.split("-")[-2]
        if number.isdecimal() and path.name != f"{Path(given).name}-{_identity_of(int(number))}":
            shutil.rmtree(path, ignore_errors=True)
    own = f"{given}-{parent}"
    try:
        Path(own).mkdir(parents=True, exist_ok=True)
    except OSError:
        return given  # a place for that one folder alone, as a container may have
    return own


def _identity_of(number: int) -> str:
    """Return a process's number and start, which no later process has as well; empty if that cannot be known."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return f"{number}-{fields[19]}"
