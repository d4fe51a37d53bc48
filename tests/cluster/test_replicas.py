"""Two replicas of the service that share nothing but object storage."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil

from emotion_assets.assets.drift import drift_report
from emotion_assets.assets.feedback import collected_feedback, prediction_history
from emotion_assets.core.remote import open_store
from emotion_assets.resources import PipelineSettings
from emotion_assets.steps.drift.prediction_log import PredictionLogReader
from emotion_assets.steps.registry.registry import Registry
from emotion_service.prediction_log import OBJECT_SECONDS
from tests.bundles import change_manifest
from tests.cluster.helpers import materialize, replica, wait_until


def promote(settings: PipelineSettings) -> str:
    """Make a copy of the champion the new champion; return its version."""
    with settings.opened(writes=("models",)) as paths:
        registry = Registry(paths.models)
        source = registry.require_champion()
        target = paths.models / f"20990101-000000-{source.name[-8:]}"
        shutil.copytree(source, target)
        change_manifest(target, version=target.name)
        registry.roll_back(target.name, "promoted by a test")
    return target.name


class Visitor(threading.Thread):
    """Predicts one face after the other, until it is stopped; remembers what was answered."""

    def __init__(self, address: str, content: bytes) -> None:
        super().__init__()
        self._address, self._content = address, content
        self.stopped = threading.Event()
        self.answers: list[tuple[float, str, str]] = []
        """When, the prediction's id, and the version of the model."""
        self.failures: list[str] = []

    def run(self) -> None:
        headers = {"Content-Type": "image/jpeg"}
        while not self.stopped.is_set():
            try:
                answer = httpx.post(f"{self._address}/predict", content=self._content, headers=headers, timeout=20)
                record = answer.raise_for_status().json()
            except httpx.HTTPError as error:
                self.failures.append(repr(error))
            else:
                self.answers.append((time.monotonic(), record["prediction_id"], record["model_version"]))
            time.sleep(0.02)

    def stop(self) -> None:
        self.stopped.set()
        self.join()


def test_replicas_share_history_labels_and_champion(hosts: list[PipelineSettings], face: bytes, tmp_path: Path) -> None:
    """Every answer is in the history once, labels reach `raw`, both follow a promotion, a kill loses a second."""
    materialize(hosts[0])
    root = hosts[0].remote_root
    with replica(root, tmp_path / "a") as (first, _), replica(root, tmp_path / "b") as (second, killed):
        visitors = [Visitor(address, face) for address in (first, second)]
        for visitor in visitors:
            visitor.start()
        time.sleep(2)
        promoted = promote(hosts[1])
        wait_until(lambda: all(visitor.answers[-1][2] == promoted for visitor in visitors))
        labelled = visitors[0].answers[0][1]
        # The other replica knows the id, and of two labels for it one wins.
        statuses = [
            httpx.post(f"{address}/feedback", json={"prediction_id": labelled, "emotion": emotion}).status_code
            for address, emotion in ((second, "sad"), (first, "happy"))
        ]
        visitors[1].stop()
        time.sleep(2 * OBJECT_SECONDS)
        last = Visitor(second, face)
        last.start()
        time.sleep(6)
        killed_at = time.monotonic()
        for process in (killed.pid, *children(killed.pid)):
            kill(process)
        last.stop()
        visitors[0].stop()
        assert [visitor.failures for visitor in visitors] == [[], []]
        assert statuses == [200, 409]

    with hosts[1].opened("predictions") as paths:
        logged = Counter(PredictionLogReader(paths.predictions, 100_000).latest()["prediction_id"])
    answered = [name for visitor in visitors for _, name, _ in visitor.answers]
    assert max(logged.values()) == 1
    assert set(answered) <= logged.keys()
    lost = [moment for moment, name, _ in last.answers if name not in logged]
    assert len(last.answers) > len(lost)
    # The batch of the last second, and the one that was being uploaded, with room for a busy machine.
    assert all(killed_at - moment < 4 * OBJECT_SECONDS for moment in lost)

    for asset in (collected_feedback, prediction_history, drift_report):
        assert materialize(hosts[0], asset).success
    stored = [each["path"] for batch in open_store(root).list("raw/Sad/feedback") for each in batch]
    assert [Path(path).stem for path in stored] == [labelled]
    assert materialize(hosts[1], drift_report).success
    folders = {path.name for path in hosts[1].paths.drift_reports.iterdir() if path.is_dir()}
    assert len(folders) == 2  # both hosts' reports


def children(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
