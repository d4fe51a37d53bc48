"""The files of an unfinished run: checkpoints, teachers, and the cost so far."""

from __future__ import annotations

import hashlib
import json
import os
import time
import zipfile
from pathlib import Path
from typing import Final

import torch

from emotion_assets.core.files import remove_temporary_files, write_atomically, write_json
from emotion_assets.steps.training.config import TrainingConfig

CHECKPOINT_NAME: Final = "last.ckpt"
TEACHER_NAME: Final = "teacher_{}.safetensors"
ORIENTATION_DIR: Final = "orientation"
COST_NAME: Final = "cost.json"


def run_key(fingerprint: str, config: TrainingConfig, code_version: str) -> str:
    """Name a run by its inputs, so that only an equal run resumes from its checkpoint."""
    described = json.dumps([fingerprint, config.model_dump(), code_version], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def count_completed_epochs(checkpoint_path: Path) -> int:
    """Return the number of epochs in a checkpoint; 0 if there is none, and a damaged one is removed."""
    try:
        # A checkpoint is a zip file whose checksums torch does not compare: reading an entry does.
        with zipfile.ZipFile(checkpoint_path) as entries:
            for name in entries.namelist():
                entries.read(name)
        return int(torch.load(checkpoint_path, weights_only=True, map_location="cpu")["epoch"]) + 1
    except FileNotFoundError:
        return 0
    except Exception:  # noqa: BLE001 -- torch raises many classes on a damaged file
        checkpoint_path.unlink(missing_ok=True)
        return 0


def is_first_process() -> bool:
    """Return whether this is the one of a run's processes that writes its files."""
    return os.environ.get("RANK", "0") == "0"


def share_first_file(path: Path) -> None:
    """Give all processes the first one's file, or its absence: each host may have a disk of its own.

    Does nothing before the processes are connected, which Ray does at the start. Those that torch's own launcher starts
    are on one host.
    """
    if not torch.distributed.is_initialized():
        return
    is_first = torch.distributed.get_rank() == 0
    content = [path.read_bytes() if is_first and path.exists() else None]
    torch.distributed.broadcast_object_list(content)
    if is_first or content[0] == (path.read_bytes() if path.exists() else None):
        return
    if content[0] is None:
        path.unlink(missing_ok=True)
    else:
        write_atomically(path, content[0])


class RunCost:
    """The time that a run has taken so far, stored in its folder so that an interrupted run counts in full."""

    def __init__(self, run_dir: Path, num_processes: int) -> None:
        """Continue from the file in `run_dir`, if there is one."""
        self._path, self._num_processes = run_dir / COST_NAME, num_processes
        self._started, self._cpu_started = time.monotonic(), time.process_time()
        try:
            self._seconds, self._cpu_seconds = map(float, json.loads(self._path.read_text()))
        except (OSError, ValueError, TypeError):
            self._seconds = self._cpu_seconds = 0.0

    def total(self) -> tuple[float, float]:
        """Return seconds and CPU-seconds, including those before an interruption."""
        cpu_seconds = (time.process_time() - self._cpu_started) * self._num_processes
        return self._seconds + time.monotonic() - self._started, self._cpu_seconds + cpu_seconds

    def record(self) -> None:
        """Write the current total to the run's folder."""
        if is_first_process():
            write_json(self._path, self.total())


def remove_run_files(work_dir: Path) -> None:
    """Remove checkpoints, teachers and costs of all runs at or below `work_dir`; their logs stay."""
    for name in (CHECKPOINT_NAME, COST_NAME, TEACHER_NAME.format("*")):
        for path in work_dir.rglob(name):
            path.unlink(missing_ok=True)
    remove_temporary_files(work_dir)
