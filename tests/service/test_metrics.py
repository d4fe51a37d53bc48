"""Each service counts in a directory of its own, and the numbers of its workers are added up."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

WORKER = """
import sys
from emotion_service.metrics import Metrics
metrics = Metrics()
metrics.record_model("v1")
metrics.errors.labels("timeout").inc()
print("ready", flush=True)
for _ in sys.stdin:
    print(metrics.text().decode().replace("\\n", "|"), flush=True)
metrics.close()
"""
# A service: a process that starts a worker and passes its input on.
SERVICE = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {WORKER!r}]))"

Start = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts a worker, or a service with a worker, that shares a BENTOML_HOME with the others."""
    shared = tmp_path / "prometheus_multiproc_dir"
    shared.mkdir()
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(shared)}

    def start_process(source: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", source], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        return process

    return start_process


def scrape(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdin
    assert process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().split("|")


def test_workers_are_added_up_and_killed_ones_leave_the_gauges(start: Start) -> None:
    """The counters of a killed worker stay, its gauges go."""
    with start(WORKER) as first, start(WORKER) as second:
        both = scrape(first)
        second.kill()
        second.wait()
        one = scrape(first)
        first.communicate()

    assert 'emotion_model_workers{model_version="v1"} 2.0' in both
    assert 'emotion_errors_total{code="timeout"} 2.0' in both
    assert 'emotion_model_workers{model_version="v1"} 1.0' in one
    assert 'emotion_errors_total{code="timeout"} 2.0' in one


def test_services_with_the_same_home_count_apart(start: Start, tmp_path: Path) -> None:
    """What a service left that has ended is removed by the next one."""
    ended = tmp_path / "prometheus_multiproc_dir-999999999"
    ended.mkdir()
    with start(SERVICE) as first, start(SERVICE) as second:
        numbers = scrape(first), scrape(second)
        first.communicate()
        second.communicate()

    assert all('emotion_model_workers{model_version="v1"} 1.0' in lines for lines in numbers)
    assert not ended.exists()
