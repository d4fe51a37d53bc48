"""What lies in a run's folder while it lasts: checkpoints, teachers, and what it has cost so far."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Final

import torch

from emotion_assets.core.files import remove_temporary_files, write_json
from emotion_assets.steps.training.config import TrainingConfig

CHECKPOINT_NAME: Final = "last.ckpt"
TEACHER_NAME: Final = "teacher_{}.safetensors"
ORIENTATION_DIR: Final = "orientations"
_COST_NAME: Final = "cost.json"


def run_key(fingerprint: str, config: TrainingConfig, code_version: str) -> str:
    """Name a run by its inputs, so that only an equal one continues from its checkpoint."""
    described = json.dumps([fingerprint, dataclasses.asdict(config), code_version], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def completed_epochs(checkpoint_path: Path) -> int:
    """Return how many epochs a checkpoint holds; 0 when there is none that can be read."""
    try:
        return int(torch.load(checkpoint_path, weights_only=True, map_location="cpu")["epoch"]) + 1
    except FileNotFoundError:
        return 0
    except Exception:  # noqa: BLE001 -- torch raises many classes on a damaged file
        # Torn by a kill, or of another version: the run starts from scratch, which is always right.
        checkpoint_path.unlink(missing_ok=True)
        return 0


def is_first_process() -> bool:
    """Tell whether this is the one of a run's processes that writes its files."""
    return os.environ.get("RANK", "0") == "0"


class RunCost:
    """What a run has cost so far, kept in a file, so that an interrupted one does not look cheap."""

    def __init__(self, run_dir: Path, num_processes: int) -> None:
        """Go on from what the file in `run_dir` says, if there is one."""
        self._path, self._num_processes = run_dir / _COST_NAME, num_processes
        self._started, self._cpu_started = time.monotonic(), time.process_time()
        try:
            self._seconds, self._cpu_seconds = map(float, json.loads(self._path.read_text()))
        except (OSError, ValueError, TypeError):
            self._seconds = self._cpu_seconds = 0.0

    def total(self) -> tuple[float, float]:
        """Return seconds and CPU-seconds, those before an interruption included."""
        cpu_seconds = (time.process_time() - self._cpu_started) * self._num_processes
        return self._seconds + time.monotonic() - self._started, self._cpu_seconds + cpu_seconds

    def note(self) -> None:
        """Write down what it is now."""
        if is_first_process():
            write_json(self._path, self.total())


def remove_run_files(run_dir: Path) -> None:
    """Remove checkpoint, teachers and cost of a finished run, once its bundle is written; its logs stay."""
    checkpoints = (run_dir / CHECKPOINT_NAME, run_dir / ORIENTATION_DIR / CHECKPOINT_NAME)
    for path in (*checkpoints, run_dir / _COST_NAME, *run_dir.glob(TEACHER_NAME.format("*"))):
        path.unlink(missing_ok=True)
    remove_temporary_files(run_dir)


def remove_all_run_files(work_dir: Path) -> None:
    """Remove checkpoints, teachers and costs of all runs in `work_dir`; their logs stay."""
    for name in (CHECKPOINT_NAME, _COST_NAME, TEACHER_NAME.format("*")):
        for path in work_dir.rglob(name):
            path.unlink(missing_ok=True)
