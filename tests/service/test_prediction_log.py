from __future__ import annotations

import errno
import io
import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from emotion_service import prediction_log
from emotion_service.prediction_log import PredictionLog


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
    monkeypatch.setattr(prediction_log, "BATCH_SECONDS", 0.5)
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


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
