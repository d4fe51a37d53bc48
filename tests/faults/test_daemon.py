"""Dagster's daemon, its code server and the process of a run are killed."""

from __future__ import annotations

import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest

from benchmarks.daemon_kills import CHECKOUT, Machine, deliver
from emotion_assets.demo.faces import draw_dataset
from emotion_assets.steps.ingest.export import read_catalogue
from emotion_assets.steps.ingest.scan import folder_state

NUM_FILES = 40
SECONDS = 15
# The gate may not be what ends a run here.
RUN_CONFIG = """
ops:
  trained_cnn: {config: {preset: quick, epochs: 2, width: 8, batch_size: 32}}
  evaluation_report: {config: {force_reason: a test}}
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A data root whose instance looks for dead runs every two seconds."""
    machine = Machine(tmp_path / "home")
    settings = (CHECKOUT / "dagster_home" / "dagster.yaml").read_text()
    faster = settings.replace("poll_interval_seconds: 60", "poll_interval_seconds: 2")
    assert faster != settings
    (machine.dagster_home / "dagster.yaml").write_text(faster)
    (machine.home / "run.yaml").write_text(RUN_CONFIG)
    machine.environment["EMOTION_QUIET_SECONDS"] = "5"
    draw_dataset(machine.paths, num_per_class=20, seed=11)
    yield machine
    if machine.daemon and machine.daemon.poll() is None:
        machine.kill()


def test_no_file_is_lost_to_kills(machine: Machine) -> None:
    """A run whose process was killed fails and is started again; in the end every file was ingested."""
    machine.dagster("sensor", "start", "new_images_sensor")
    machine.start()
    delivery = threading.Thread(target=deliver, args=(machine.paths.raw, NUM_FILES, SECONDS, random.Random(1)))
    delivery.start()
    for _ in range(3):
        time.sleep(SECONDS / 3)
        machine.kill()
        machine.start()
    delivery.join()

    wait_until(lambda: worker_of(machine))
    (killed,) = machine.retrains()
    worker = psutil.Process(worker_of(machine))
    worker.send_signal(signal.SIGKILL)
    wait_until(lambda: len(machine.retrains()) > 1 and all(run.is_finished for run in machine.retrains()))

    runs = {run.run_id: run for run in machine.retrains()}
    again = next(run for run in runs.values() if run.parent_run_id == killed.run_id)
    table = read_catalogue(machine.paths.catalogue)
    arrived = table[table["path"].str.contains("delivery")]
    assert len(runs) <= 3
    assert runs[killed.run_id].status == dg.DagsterRunStatus.FAILURE
    assert again.status == dg.DagsterRunStatus.SUCCESS
    assert (len(arrived), arrived["is_accepted"].sum()) == (NUM_FILES, NUM_FILES)
    assert machine.ingested_signature() == folder_state(machine.paths.raw).signature


def worker_of(machine: Machine) -> int:
    """Return the process id of the first run that executes, or 0; one that dies earlier fails after three minutes."""
    for run in machine.retrains():
        if run.status != dg.DagsterRunStatus.STARTED:
            continue
        with dg.DagsterInstance.from_config(str(machine.dagster_home)) as instance:
            messages = [
                str(record.event_log_entry.message) for record in instance.get_records_for_run(run.run_id).records
            ]
        for message in messages:
            if found := re.search(r"Started process for run \(pid: (\d+)\)", message):
                return int(found[1])
    return 0


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(1)


def test_a_run_that_died_with_everything_blocks_nothing(machine: Machine) -> None:
    """As after a power cut: daemon, code server and run end at once, and the restarted daemon goes on."""
    (machine.home / "run.yaml").write_text(RUN_CONFIG.replace("epochs: 2", "epochs: 500"))
    machine.dagster("sensor", "start", "new_images_sensor")
    machine.start()
    wait_until(lambda: worker_of(machine))
    (killed,) = machine.retrains()
    worker = worker_of(machine)
    machine.kill()
    wait_until(lambda: not psutil.pid_exists(worker))
    (machine.home / "run.yaml").write_text(RUN_CONFIG)

    machine.start()
    wait_until(lambda: any(run.run_id == killed.run_id and run.is_finished for run in machine.retrains()))

    statuses = {run.run_id: run.status for run in machine.retrains()}
    assert statuses[killed.run_id] == dg.DagsterRunStatus.FAILURE
