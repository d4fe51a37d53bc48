"""Train in several processes: one per GPU, or one per core where there are fewer GPUs.

Lightning's own launchers start the calling program again for each device, which inside Dagster would repeat the whole
job. So torch's launcher starts workers that know nothing of Dagster (`worker.py`).
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import Any, Final

from emotion_assets.core import errors
from emotion_assets.core.layout import DataPaths
from emotion_assets.core.processes import die_with_parent
from emotion_assets.steps.training.config import TrainingConfig

_logger = logging.getLogger(__name__)

LOG_MARK: Final = "log: "
"""Marks the lines of a worker's output that belong in the run's log; libraries write to the same stream."""
_NUM_LAST_LINES: Final = 30


def launch(paths: DataPaths, config: TrainingConfig, *, code_version: str, tracker: str) -> Path:
    """Train in `config.devices` processes on this machine, and return the folder of the bundle.

    Raises:
        EmotionError: as `train_bundle`.
        FloatingPointError: the loss became infinite or NaN.
        RuntimeError: a process ended without an error of its own; the message has its last lines.
    """
    with tempfile.TemporaryDirectory() as folder:
        job_path, result_path = Path(folder) / "job.json", Path(folder) / "result.json"
        job = {
            "root": str(paths.root.absolute()),
            "config": config.model_dump(),
            "code_version": code_version,
            "tracker": tracker,
            "result": str(result_path),
        }
        job_path.write_text(json.dumps(job))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(config.devices), "-m", "emotion_assets.steps.training.worker"]
        last_lines = _run([*command, str(job_path)])
        result: dict[str, Any] = json.loads(result_path.read_text()) if result_path.exists() else {}
    if "bundle_dir" in result:
        return Path(result["bundle_dir"])
    if "error" in result:
        kind = FloatingPointError if result["error"] == "FloatingPointError" else getattr(errors, result["error"])
        raise kind(result["message"])
    raise RuntimeError(f"Training in {config.devices} processes failed. Last output:\n" + "\n".join(last_lines))


def _run(command: list[str]) -> deque[str]:
    """Run a command, log its marked lines, and return the last lines of both streams."""
    last: deque[str] = deque(maxlen=_NUM_LAST_LINES)
    with subprocess.Popen(  # noqa: S603 -- our own module
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509 -- one call into the C library, before any thread of the child
    ) as process:
        assert process.stdout
        try:
            for line in process.stdout:
                text = line.rstrip()
                last.append(text.removeprefix(LOG_MARK))
                if text.startswith(LOG_MARK):
                    _logger.info("%s", last[-1])
        except BaseException:
            # A canceled run must not write a model later; the workers die with their launcher.
            process.kill()
            raise
    return last
