"""Several processes train one network, and a single Dagster run sees one result or one clear error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import dagster as dg
import pytest

from emotion_assets.assets.training import trained_cnn
from emotion_assets.core.bundle import ORIENTATION_WEIGHTS_NAME, read_manifest
from emotion_assets.core.classifier import Classifier
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.resources import DataPaths
from emotion_assets.steps.training.module import ShuffledBatchSampler
from emotion_assets.steps.training.run import train_bundle

CHOICES = {"epochs": 2, "width": 8, "batch_size": 32, "precision": "32-true", "devices": 2}
CHOICES |= {"num_teachers": 1, "corrects_orientation": True}


def train_together(
    splits_dir: Path,
    root: Path,
    changes: Mapping[str, object] = MappingProxyType({}),
    log: Callable[[str], None] = lambda _: None,
) -> Path:
    """Train in two processes with models and work below `root`."""
    places = (splits_dir, root / "models", root / "work")
    return train_bundle(*places, preset="quick", overrides=CHOICES | dict(changes), code_version="x", log=log)


def test_processes_fraction_each_batch() -> None:
    """Together they see the batch that one would see, and none twice."""
    whole = list(ShuffledBatchSampler(100, 32, seed=3))
    fractions = [list(ShuffledBatchSampler(100, 32, seed=3, rank=rank, num_ranks=2)) for rank in (0, 1)]

    for number, batch in enumerate(whole):
        first, second = fractions[0][number], fractions[1][number]
        assert sorted(first + second) == sorted(batch)
        assert len(first) == len(second)


def test_two_processes_in_one_dagster_run(drawn_root: Path, tmp_path: Path) -> None:
    """The asset materializes once, with a bundle that answers, and its log has every line once."""
    (tmp_path / "splits").symlink_to(drawn_root / "splits")
    places = DataPaths(data_dir=str(tmp_path), reports_url="http://localhost:3002")
    config = {"ops": {"trained_cnn": {"config": {"preset": "quick", **CHOICES}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [trained_cnn, dg.AssetSpec("greyscale_splits")],
            selection=[trained_cnn],
            resources={"places": places},
            run_config=config,
            instance=instance,
        )
        assert len(instance.get_runs()) == 1
        messages = [entry.user_message for entry in instance.all_logs(result.run_id)]
    (materialization,) = result.asset_materializations_for_node("trained_cnn")
    version = str(materialization.metadata["version"].value)

    assert materialization.metadata["epochs"].value == 2
    for start in ("Teacher 1 of 1: Epoch 2 of 2", "Epoch 2 of 2", "Orientations: Epoch 2 of 2", "Log loss"):
        assert sum(message.startswith(start) for message in messages) == 1
    assert read_manifest(tmp_path / "models" / version).configuration["devices"] == 2
    assert (tmp_path / "models" / version / ORIENTATION_WEIGHTS_NAME).exists()
    Classifier(tmp_path / "models" / version).self_test()


def test_an_error_of_a_process_is_raised_here(drawn_root: Path, tmp_path: Path) -> None:
    """The kind and the sentence are those of a run in one process."""
    with pytest.raises(FloatingPointError, match="Lower learning_rate"):
        train_together(drawn_root / "splits", tmp_path, {"adam_learning_rate": 1e30, "learning_rate": 1e30})
    with pytest.raises(UnusableDataError):
        train_together(tmp_path / "none", tmp_path)


class Cancelled(BaseException):
    """Not an error: what Dagster raises in a run that somebody terminates is none either."""


def test_a_cancelled_run_leaves_no_model(drawn_root: Path, tmp_path: Path) -> None:
    """Its processes end at once, also while the graph is made: the bundle is written seconds later."""
    workers: list[int] = []

    def cancel(line: str) -> None:
        if line.startswith("Epoch 2 of 2"):
            workers.extend(workers_of(tmp_path))
            raise Cancelled

    with pytest.raises(Cancelled):
        train_together(drawn_root / "splits", tmp_path, {"num_teachers": 0, "corrects_orientation": False}, log=cancel)

    assert workers
    wait_until_gone(workers)
    assert list((tmp_path / "models").glob("*/manifest.json")) == []


def test_a_killed_run_leaves_no_process_behind_and_goes_on_later(drawn_root: Path, tmp_path: Path) -> None:
    """Workers die with whoever launched them, so nobody writes later; the next run begins where they were."""
    program = (
        "import sys; from pathlib import Path; from emotion_assets.steps.training.run import train_bundle;"
        "train_bundle(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), preset='quick', code_version='x',"
        f"overrides={CHOICES | {'epochs': 4}!r}, log=lambda line: print(line, flush=True))"
    )
    arguments = [str(drawn_root / "splits"), str(tmp_path / "models"), str(tmp_path / "work")]
    with subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("Epoch 2 "):
                break
        workers = workers_of(tmp_path)
        process.kill()

    assert len(workers) == 3  # the launcher, too
    wait_until_gone(workers)
    lines: list[str] = []
    train_together(drawn_root / "splits", tmp_path, {"epochs": 4}, log=lines.append)
    assert lines[0] == "Teacher 1 of 1 is finished already"
    assert lines[1].startswith("Going on after epoch")


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
    """Whether there is such a process, other than one that ended and was not asked for its status."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def workers_of(folder: Path) -> list[int]:
    """Process ids of training workers whose job names `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
            job = next((Path(word.decode()) for word in words if word.endswith(b"job.json")), None)
            if job and b"emotion_assets.steps.training.worker" in words and str(folder) in job.read_text():
                found.append(int(entry.parent.name))
        except (OSError, UnicodeDecodeError):
            continue
    return found
