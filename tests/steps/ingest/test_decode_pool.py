from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from emotion_assets.steps.ingest import decode_pool
from emotion_assets.steps.ingest.decode import ReadResult, read_files
from emotion_assets.steps.ingest.decode_pool import Batch, DecodePool
from emotion_assets.steps.ingest.scan import FolderScan, SourceFile
from emotion_assets.steps.ingest.store import Store

INGEST = """
import sys
from pathlib import Path
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.ingest import catalogue, decode_pool
decode_pool.PARALLEL_FROM_FILES, catalogue.BATCH_FILES = 0, 4
def wait(*_):
    print("decoding", flush=True)
    import time
    time.sleep(600)
catalogue.Store.add = wait
if __name__ == "__main__":
    catalogue.ingest_images(DataPaths(Path(sys.argv[1])), num_workers=2)
"""


@pytest.fixture
def batches(raw: Path) -> list[Batch]:
    """The files of `raw` in batches of two, beside an empty store."""
    with Store(raw.parent / "empty.sqlite"):
        pass
    files = sorted(entry for entry in FolderScan(raw) if isinstance(entry, SourceFile))
    return [tuple(files[start : start + 2]) for start in range(0, len(files), 2)]


def open_pool(raw: Path, num_workers: int) -> DecodePool:
    return DecodePool(str(raw), str(raw.parent / "empty.sqlite"), num_workers)


def read_all(raw: Path, batches: list[Batch], num_workers: int) -> list[tuple[Batch, list[ReadResult]]]:
    return list(open_pool(raw, num_workers).read(batches))


def wait_until(is_met: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not is_met() and time.monotonic() < deadline:
        time.sleep(0.02)
    return is_met()


def worker_processes() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "popen_loky_posix" in " ".join(child.cmdline())]


def test_worker_processes_give_the_same_in_the_same_order(
    raw: Path, batches: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results do not depend on the number of workers, and no worker outlives the pool."""
    monkeypatch.setattr(decode_pool, "PARALLEL_FROM_FILES", 6)

    serial = read_all(raw, batches, num_workers=1)
    parallel = read_all(raw, batches, num_workers=2)

    assert [batch for batch, _ in serial] == batches
    assert parallel == serial
    assert not worker_processes()


def read_or_die(raw_dir: str, store_path: str, files: Batch) -> list[ReadResult]:
    """Kill the worker process that gets the fourth batch."""
    if any(file.path == b"Happy/6.jpg" for file in files) and os.getpid() != int(os.environ["TEST_MAIN_PID"]):
        os.kill(os.getpid(), signal.SIGKILL)
    return read_files(raw_dir, store_path, files)


def test_dead_workers_lose_nothing(
    raw: Path, batches: list[Batch], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When a worker is killed, its batch and all others are read in this process."""
    expected = read_all(raw, batches, num_workers=1)
    monkeypatch.setenv("TEST_MAIN_PID", str(os.getpid()))
    monkeypatch.setattr(decode_pool, "PARALLEL_FROM_FILES", 0)
    monkeypatch.setattr(decode_pool, "read_files", read_or_die)

    with caplog.at_level(logging.WARNING):
        results = read_all(raw, batches, num_workers=2)

    assert results == expected
    assert caplog.text.count("A worker process died") == 1


def test_workers_end_when_the_ingest_fails(raw: Path, batches: list[Batch], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is still in flight is dropped."""
    monkeypatch.setattr(decode_pool, "PARALLEL_FROM_FILES", 0)

    with closing(open_pool(raw, 2).read(batches)) as results:
        next(results)
        assert len(worker_processes()) == 2

    assert not worker_processes()


def test_a_killed_ingest_leaves_no_worker(raw: Path) -> None:
    """SIGKILL gives the parent no chance to clean up."""
    script = raw.parent / "ingest.py"
    script.write_text(INGEST)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, str(script), str(raw.parent)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"decoding\n"
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len(workers) >= 2

        process.kill()
        process.wait()

    assert wait_until(lambda: not any(is_alive(worker) for worker in workers))


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
