"""Several processes train one network, and the caller sees one result or one clear error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from emotion_assets.core.bundle import ORIENTATION_WEIGHTS_NAME, read_manifest
from emotion_assets.core.classifier import Classifier
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.training.launch import describe_job
from emotion_assets.steps.training.run import train_bundle
from tests.steps.training.helpers import TINY, calling_at, link_splits, tiny

CONFIG = tiny(width=8, devices=2, num_teachers=1, corrects_orientation=True)


def test_two_processes_train_one_model(drawn_root: Path, tmp_path: Path, log_lines: Callable[[], list[str]]) -> None:
    """The bundle works, and the log has every line once."""
    bundle_dir = train_bundle(link_splits(drawn_root, tmp_path), CONFIG, code_version="x")
    lines, manifest = log_lines(), read_manifest(bundle_dir)

    for start in ("Teacher 1 of 1: Epoch 2 of 2", "Epoch 2 of 2", "Orientation: Epoch 2 of 2", "Validation log loss"):
        assert sum(line.startswith(start) for line in lines) == 1
    assert manifest.configuration["devices"] == 2
    assert len(manifest.training["history"]) == 2
    assert (bundle_dir / ORIENTATION_WEIGHTS_NAME).exists()
    Classifier(bundle_dir).self_test()


def test_an_error_of_a_process_is_raised_here(drawn_root: Path, tmp_path: Path) -> None:
    """Class and message are those of a run in one process."""
    diverging = CONFIG.model_copy(update={"adam_learning_rate": 1e30, "learning_rate": 1e30, "num_teachers": 0})
    with pytest.raises(FloatingPointError, match="Lower learning_rate"):
        train_bundle(link_splits(drawn_root, tmp_path), diverging, code_version="x")
    with pytest.raises(UnusableDataError, match="greyscale_splits"):
        train_bundle(DataPaths(tmp_path / "none"), CONFIG, code_version="x")


def test_errors_are_left_for_the_launcher(tmp_path: Path) -> None:
    """The result file has class and message, so that the launcher can raise them."""
    job_path, result_path = tmp_path / "job.json", tmp_path / "result.json"
    job = describe_job(DataPaths(tmp_path), TINY, "") | {"result": str(result_path)}
    job_path.write_text(json.dumps(job))

    command = [sys.executable, "-m", "emotion_assets.steps.training.launch", str(job_path)]
    process = subprocess.run(command, env=os.environ | {"RANK": "0"}, check=False)

    assert process.returncode == 1
    error = json.loads(result_path.read_text())
    assert error["error"] == "UnusableDataError"
    assert "Materialize greyscale_splits first" in error["message"]


class Canceled(BaseException):
    """Not an error, like what Dagster raises in a run that somebody terminates."""


def test_a_canceled_run_leaves_no_model(drawn_root: Path, tmp_path: Path) -> None:
    """Its processes end at once, also during the export: the bundle would be written seconds later."""
    workers: list[int] = []
    paths = link_splits(drawn_root, tmp_path)

    def cancel() -> None:
        workers.extend(find_workers(tmp_path))
        raise Canceled

    config = CONFIG.model_copy(update={"num_teachers": 0, "corrects_orientation": False})
    with calling_at("Epoch 2 of 2", cancel), pytest.raises(Canceled):
        train_bundle(paths, config, code_version="x")

    assert workers
    wait_until_gone(workers)
    assert list(paths.models.glob("*/manifest.json")) == []


def test_a_killed_run_leaves_no_process_and_resumes_later(
    drawn_root: Path, tmp_path: Path, log_lines: Callable[[], list[str]]
) -> None:
    """Workers die with their launcher, so nobody writes later; the next run continues where they were."""
    paths, config = link_splits(drawn_root, tmp_path), CONFIG.model_copy(update={"epochs": 4})
    program = (
        "import logging, sys; from pathlib import Path; from emotion_assets.core.layout import DataPaths;"
        "from emotion_assets.steps.training.config import TrainingConfig;"
        "from emotion_assets.steps.training.run import train_bundle;"
        "logging.basicConfig(stream=sys.stdout, level=logging.INFO, format='%(message)s');"
        f"train_bundle(DataPaths(Path(sys.argv[1])), TrainingConfig(**{config.model_dump()!r}), code_version='x')"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("Epoch 2 "):
                break
        workers = find_workers(tmp_path)
        process.kill()

    assert len(workers) == 3  # the launcher, too
    wait_until_gone(workers)
    train_bundle(paths, config, code_version="x")
    # A helper process of the killed run may hold the lock for a moment longer.
    lines = [line for line in log_lines() if not line.startswith("Waiting for another run")]
    assert lines[0] == "Teacher 1 of 1 is finished already"
    assert lines[1].startswith("Resuming an interrupted run after epoch")


def wait_until_gone(processes: list[int]) -> None:
    """Fail if one of them is there after 20 seconds, and end it."""
    deadline = time.monotonic() + 20
    while any(map(is_running, processes)) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = [number for number in processes if is_running(number)]
    for number in left:
        os.kill(number, signal.SIGKILL)
    assert left == []


def is_running(number: int) -> bool:
    """Whether there is such a process, other than a zombie."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def find_workers(folder: Path) -> list[int]:
    """Process ids of training workers whose job names `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
            job = next((Path(word.decode()) for word in words if word.endswith(b"job.json")), None)
            if job and b"emotion_assets.steps.training.launch" in words and str(folder) in job.read_text():
                found.append(int(entry.parent.name))
        except (OSError, UnicodeDecodeError):
            continue
    return found
