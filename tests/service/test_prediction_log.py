from __future__ import annotations

import errno
import io
import json
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import pytest

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.image_stats import STATISTICS
from emotion_assets.steps.drift.prediction_log import PredictionLogReader
from emotion_service import prediction_log
from emotion_service.prediction_log import PredictionLog

# Appends a record each millisecond, and tells its number. Ends after so many, or never.
WRITER = f"""
import os, sys, time
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from emotion_service.prediction_log import PredictionLog
folder, name, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
log = PredictionLog(folder, lambda result, count: None)
constant = {{
    "model_version": name,
    "emotion": "happy",
    "image_sha256": "0" * 64,
    "features": dict.fromkeys({STATISTICS!r}, 0.5),
    "probabilities": dict.fromkeys({EMOTIONS!r}, 0.2),
}}
for i in range(number) if number else count():
    log.append({{"prediction_id": f"{{name}}-{{i}}", "time": datetime.now(UTC).isoformat(), **constant}})
    os.write(1, f"{{i}}\\n".encode())
    time.sleep(0.001)
log.close()
"""
MAX_LOST = 100
"""Records a kill: what is queued for ten milliseconds, with room for a busy machine."""


def start_writer(folder: Path, name: str, number: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), name, str(number)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def lines(folder: Path) -> list[dict[str, int]]:
    return [json.loads(line) for path in sorted(folder.rglob("*.jsonl")) for line in path.read_text().splitlines()]


class Counts(Counter[str]):
    """Counts the records that were written and lost."""

    def __call__(self, result: str, number: int) -> None:
        self[result] += number


def test_records_from_many_threads_are_whole(tmp_path: Path) -> None:
    """A thousand records of eight threads are written, each as a line of its own."""
    counts = Counts()
    log = PredictionLog(tmp_path, counts)

    def write(worker: int) -> None:
        for number in range(125):
            log.append({"worker": worker, "number": number})

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()

    assert len({(record["worker"], record["number"]) for record in lines(tmp_path)}) == 1000
    assert counts == {"written": 1000}


class FullDisk(io.BytesIO):
    """A file without space for a byte."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self.name = file.name

    def fileno(self) -> int:
        return self._file.fileno()

    def write(self, _: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        self._file.close()


def test_a_full_disk_gets_no_empty_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It still creates files; an empty segment is deleted, and later records are written."""
    with monkeypatch.context() as patch:
        counts = Counts()
        real_open = Path.open
        patch.setattr(Path, "open", lambda path, *args, **options: FullDisk(real_open(path, *args, **options)))
        log = PredictionLog(tmp_path, counts)
        for number in range(3):
            log.append({"number": number})
            wait_until(lambda expected=number + 1: counts["lost"] == expected)
        assert list(tmp_path.rglob("*.jsonl")) == []
    log.append({"number": 3})
    log.close()

    assert [record["number"] for record in lines(tmp_path)] == [3]


def test_an_unwritable_disk_is_counted(tmp_path: Path) -> None:
    """Records that cannot be written are counted as lost; later ones are written again."""
    blocker = tmp_path / "predictions"
    blocker.write_text("a file where the folder should be")
    counts = Counts()
    log = PredictionLog(blocker, counts)
    log.append({"number": 1})
    wait_until(lambda: counts["lost"] == 1)

    blocker.unlink()
    log.append({"number": 2})
    log.close()

    assert [record["number"] for record in lines(blocker)] == [2]
    assert counts == {"written": 1, "lost": 1}


def test_a_full_queue_drops_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the writer cannot keep up, records are lost and counted; nothing waits."""
    monkeypatch.setattr(prediction_log, "MAX_QUEUED", 5)
    counts, gate = Counts(), threading.Event()

    def count(result: str, number: int) -> None:
        counts(result, number)
        if result == "written":
            gate.wait(10)

    log = PredictionLog(tmp_path, count)
    for number in range(20):
        log.append({"number": number})
    gate.set()
    log.close()

    assert counts["lost"] >= 10
    assert counts.total() == 20
    assert len(lines(tmp_path)) == counts["written"]


def test_records_are_batched_under_load_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first after a pause is written at once, those that follow soon together; `close` writes all."""
    monkeypatch.setattr(prediction_log, "BATCH_SECONDS", 3)
    batches: list[int] = []
    log = PredictionLog(tmp_path, lambda _, number: batches.append(number))

    log.append({"number": 0})
    wait_until(lambda: len(batches) == 1)
    for number in range(1, 21):
        log.append({"number": number})
    log.close()

    assert batches == [1, 20]
    assert [record["number"] for record in lines(tmp_path)] == list(range(21))


def test_a_deleted_segment_is_replaced(tmp_path: Path) -> None:
    """Records that are written to a deleted file would be lost."""
    counts = Counts()
    log = PredictionLog(tmp_path, counts)
    log.append({"number": 1})
    wait_until(lambda: counts["written"])
    for folder in tmp_path.iterdir():
        shutil.rmtree(folder)
    log.append({"number": 2})
    log.close()

    assert lines(tmp_path) == [{"number": 2}]


def test_kills_tear_at_most_a_last_line(tmp_path: Path) -> None:
    """The reader returns every whole record, and of each killed process only the last moment is lost."""
    rng = random.Random(4)
    appended: dict[str, int] = {}
    for number in range(10):
        with start_writer(tmp_path, name := f"writer{number}") as process:
            assert process.stdout
            assert process.stdout.readline() == "0\n"
            time.sleep(rng.uniform(0, 0.5))
            process.send_signal(signal.SIGKILL)
            appended[name] = 1 + int(("0\n" + process.stdout.read()).split()[-1])

    whole: Counter[str] = Counter()
    for path in tmp_path.rglob("*.jsonl"):
        records = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
        numbers = [int(record["prediction_id"].partition("-")[2]) for record in records]
        assert numbers == [numbers[0] + offset for offset in range(len(numbers))]
        whole.update(record["model_version"] for record in records)
    read = PredictionLogReader(tmp_path, limit=100_000).latest(emotions=EMOTIONS)
    assert Counter(read["model_version"]) == whole
    assert all(0 <= appended[name] - whole[name] <= MAX_LOST for name in appended), (appended, whole)


def test_two_processes_write_whole_lines(tmp_path: Path) -> None:
    """Each has files of its own, so their lines cannot mix."""
    with start_writer(tmp_path, "a", 500) as first, start_writer(tmp_path, "b", 500) as second:
        for process in (first, second):
            process.communicate(timeout=60)

    assert (first.returncode, second.returncode) == (0, 0)
    assert Counter(record["model_version"] for record in lines(tmp_path)) == {"a": 500, "b": 500}
    assert {path.stem.rpartition("-")[2] for path in tmp_path.rglob("*.jsonl")} == {str(first.pid), str(second.pid)}


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_each_hour_has_a_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The segment of an hour that is over stays, and the folder is that of the day."""
    now = datetime(2026, 1, 1, 23, 59, 59, tzinfo=UTC)
    monkeypatch.setattr(prediction_log, "datetime", SimpleNamespace(now=lambda _: now))
    counts = Counts()
    log = PredictionLog(tmp_path, counts)
    for number in range(3):
        log.append({"number": number})
        wait_until(lambda expected=number + 1: counts["written"] == expected)
        now += timedelta(seconds=0 if number == 0 else 1)
    log.close()

    names = [path.relative_to(tmp_path).as_posix()[:22] for path in sorted(tmp_path.rglob("*.jsonl"))]
    assert [name[:22] for name in names] == ["2026-01-01/20260101T23", "2026-01-02/20260102T00"]
    assert [record["number"] for record in lines(tmp_path)] == [0, 1, 2]


def test_half_a_line_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up takes a part; the records count as lost, and the next ones get a segment of their own."""

    class Filling(io.FileIO):
        def write(self, content: bytes) -> int:  # type: ignore[override]
            return super().write(content[:5])

    counts = Counts()
    log = PredictionLog(tmp_path, counts)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, *_, **__: Filling(path, "ab"))
        log.append({"number": 1})
        wait_until(lambda: counts.total() == 1)
    log.append({"number": 2})
    log.close()

    assert counts == {"lost": 1, "written": 1}
    assert sorted(path.read_text() for path in tmp_path.rglob("*.jsonl")) == ['{"num', '{"number":2}\n']
