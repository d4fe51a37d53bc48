from __future__ import annotations

import errno
import io
import json
import shutil
import threading
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from emotion_service.prediction_log import PredictionLog


def lines(folder: Path) -> list[dict[str, int]]:
    return [json.loads(line) for path in sorted(folder.rglob("*.jsonl")) for line in path.read_text().splitlines()]


def test_records_from_many_threads_are_whole(tmp_path: Path) -> None:
    """A thousand records of eight threads arrive, each a line of its own."""
    log = PredictionLog(tmp_path)

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
    assert (log.num_written, log.num_lost) == (1000, 0)


class FullDisk(io.BytesIO):
    """A file that has a name, but no room for a byte."""

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


def test_a_full_disk_is_not_filled_with_empty_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names still fit on it; a segment that took nothing goes again, and afterwards records are written."""
    with monkeypatch.context() as patch:
        opened = Path.open
        patch.setattr(Path, "open", lambda path, *how, **more: FullDisk(opened(path, *how, **more)))
        log = PredictionLog(tmp_path)
        for number in range(3):
            log.append({"number": number})
            _wait(lambda expected=number + 1: log.num_lost == expected)
        assert list(tmp_path.rglob("*.jsonl")) == []
    log.append({"number": 3})
    log.close()

    assert [record["number"] for record in lines(tmp_path)] == [3]


def test_an_unwritable_disk_is_counted_and_survived(tmp_path: Path) -> None:
    """Records that cannot be written are counted as lost; later ones are written again."""
    blocker = tmp_path / "predictions"
    blocker.write_text("a file where the folder should be")
    log = PredictionLog(blocker)
    log.append({"number": 1})
    _wait(lambda: log.num_lost == 1)

    blocker.unlink()
    log.append({"number": 2})
    log.close()

    assert [record["number"] for record in lines(blocker)] == [2]
    assert (log.num_written, log.num_lost) == (1, 1)


def test_a_full_queue_drops_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the writer cannot keep up, answers are not held up; what is lost is counted."""
    monkeypatch.setattr("emotion_service.prediction_log._QUEUE_RECORDS", 5)
    release = threading.Event()
    log = PredictionLog(tmp_path)
    real_write = log._write
    monkeypatch.setattr(log, "_write", lambda records: (release.wait(10), real_write(records)))

    for number in range(20):
        log.append({"number": number})
    release.set()
    log.close()

    assert log.num_lost >= 10
    assert log.num_written + log.num_lost == 20
    assert len(lines(tmp_path)) == log.num_written


def test_records_are_gathered_under_load_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first after a pause is written at once, those that follow soon together, and closing waits for all."""
    monkeypatch.setattr("emotion_service.prediction_log._GATHER_SECONDS", 0.5)
    log = PredictionLog(tmp_path)
    batches: list[int] = []
    real_write = log._write
    monkeypatch.setattr(log, "_write", lambda records: (batches.append(len(records)), real_write(records)))

    log.append({"number": 0})
    _wait(lambda: len(batches) == 1)
    for number in range(1, 21):
        log.append({"number": number})
    log.close()

    assert batches == [1, 20]
    assert [record["number"] for record in lines(tmp_path)] == list(range(21))


def _wait(condition: object) -> None:
    import time

    for _ in range(200):
        if condition():  # type: ignore[operator]
            return
        time.sleep(0.02)
    raise AssertionError("the condition never held")


def test_a_log_that_somebody_removes_begins_anew(tmp_path: Path) -> None:
    """What is written to a removed file is nowhere."""
    log = PredictionLog(tmp_path)
    log.append({"number": 1})
    while not log.num_written:
        time.sleep(0.01)
    for folder in tmp_path.iterdir():
        shutil.rmtree(folder)
    log.append({"number": 2})
    log.close()

    assert lines(tmp_path) == [{"number": 2}]
