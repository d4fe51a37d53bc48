from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from emotion_assets.steps.training.checkpoints import (
    CHECKPOINT_NAME,
    COST_NAME,
    RunCost,
    count_completed_epochs,
    remove_run_files,
    run_key,
    share_first_file,
)
from tests.steps.training.helpers import TINY, tiny


def test_only_an_equal_run_has_the_same_key() -> None:
    """Data, configuration and code each change it."""
    keys = {run_key("a", TINY, "x"), run_key("b", TINY, "x"), run_key("a", tiny(seed=1), "x"), run_key("a", TINY, "y")}

    assert len(keys) == 4
    assert run_key("a", tiny(seed=0), "x") in keys


def test_a_damaged_checkpoint_is_removed(tmp_path: Path) -> None:
    """The run starts from scratch; a whole one tells its epochs."""
    path = tmp_path / CHECKPOINT_NAME
    assert count_completed_epochs(path) == 0
    torch.save({"epoch": 4}, path)
    assert count_completed_epochs(path) == 5
    path.write_bytes(path.read_bytes()[:100])

    assert count_completed_epochs(path) == 0
    assert not path.exists()


def test_a_flipped_weight_is_noticed(tmp_path: Path) -> None:
    """torch itself would load it."""
    path = tmp_path / CHECKPOINT_NAME
    torch.save({"epoch": 4, "weights": torch.zeros(10_000)}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    assert count_completed_epochs(path) == 0
    assert not path.exists()


def test_cost_includes_interrupted_attempts(tmp_path: Path) -> None:
    """What the file says is added; CPU time counts for each process."""
    (tmp_path / COST_NAME).write_text("[1000, 2000]")
    cost = RunCost(tmp_path, 2)
    cost.record()
    seconds, cpu_seconds = json.loads((tmp_path / COST_NAME).read_text())

    assert 1000 < seconds < 1100
    assert 2000 <= cpu_seconds < 2200


def test_finished_runs_keep_only_their_logs(tmp_path: Path) -> None:
    """Checkpoints, teachers, costs and temporary files are removed at every depth."""
    removed = ("last.ckpt", "teacher_0.safetensors", "cost.json", "orientation/last.ckpt", ".last.ckpt.0123.tmp")
    for name in (*removed, "csv/version_0/metrics.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    remove_run_files(tmp_path)

    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["metrics.csv"]


class Touch:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self._path,)


@pytest.mark.parametrize("save", [pickle.dump, torch.save], ids=["pickle", "torch"])
def test_a_checkpoint_runs_no_code(tmp_path: Path, save: Callable[[object, BinaryIO], object]) -> None:
    """What was put in its place is removed, and training starts anew."""
    path, proof = tmp_path / "last.ckpt", tmp_path / "proof"
    with path.open("wb") as file:
        save({"epoch": 1, "evil": Touch(proof)}, file)

    assert count_completed_epochs(path) == 0
    assert not proof.exists()
    assert not path.exists()


SHARING = """
import sys
from pathlib import Path
import torch
from emotion_assets.steps.training.checkpoints import share_first_file
rank, folder = int(sys.argv[1]), Path(sys.argv[2])
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
for name in ("both", "first", "second"):
    share_first_file(folder / str(rank) / name)
torch.distributed.destroy_process_group()
"""


def test_processes_on_other_disks_get_the_first_ones_files(tmp_path: Path) -> None:
    """Also its absence: else one of them would resume, and the other one would not."""
    for path, content in {"0/both": "0", "1/both": "1", "0/first": "0", "1/second": "1"}.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(content)
    command = [sys.executable, "-W", "ignore", "-c", SHARING]
    processes = [subprocess.Popen([*command, str(rank), str(tmp_path)]) for rank in range(2)]

    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    for rank in range(2):
        assert {path.name: path.read_text() for path in (tmp_path / str(rank)).iterdir()} == {"both": "0", "first": "0"}


def test_a_single_process_shares_nothing(tmp_path: Path) -> None:
    share_first_file(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()
