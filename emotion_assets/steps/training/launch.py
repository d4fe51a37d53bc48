"""Train in several processes: one for each GPU, or for each core where a network gains nothing from threads.

Lightning's own launchers start the calling program once more for each device, which inside of Dagster would run the
whole job again; so torch's launcher starts workers that know nothing of Dagster (`worker.py`).
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from emotion_assets.core import errors
from emotion_assets.steps.training.config import TrainingConfig
from emotion_assets.steps.training.worker import LOG_MARK, die_with_parent

_NUM_LAST_LINES: Final = 30


def launch(
    splits_dir: Path,
    models_dir: Path,
    work_dir: Path,
    config: TrainingConfig,
    *,
    code_version: str,
    tracker: str,
    log: Callable[[str], None],
) -> Path:
    """Train in `config.devices` processes on this machine, and return the folder of the bundle.

    Raises:
        EmotionError: as `train_bundle`.
        FloatingPointError: the loss became infinite or not a number.
        RuntimeError: a process ended otherwise; the message has its last lines.
    """
    with tempfile.TemporaryDirectory() as folder:
        job_path, result_path = Path(folder) / "job.json", Path(folder) / "result.json"
        job = {
            "splits_dir": str(splits_dir.absolute()),
            "models_dir": str(models_dir.absolute()),
            "work_dir": str(work_dir.absolute()),
            "config": dataclasses.asdict(config),
            "code_version": code_version,
            "tracker": tracker,
            "result": str(result_path),
        }
        job_path.write_text(json.dumps(job))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(config.devices), "-m", "emotion_assets.steps.training.worker"]
        last = _run([*command, str(job_path)], log)
        result: dict[str, Any] = json.loads(result_path.read_text()) if result_path.exists() else {}
    if "bundle_dir" in result:
        return Path(result["bundle_dir"])
    if "error" in result:
        kind = FloatingPointError if result["error"] == "FloatingPointError" else getattr(errors, result["error"])
        raise kind(result["message"])
    raise RuntimeError(f"Training in {config.devices} processes failed; its last lines:\n" + "\n".join(last))


def _run(command: list[str], log: Callable[[str], None]) -> deque[str]:
    """Run a command, pass its lines on, and return the last lines of both streams."""
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
                    log(last[-1])
        except BaseException:
            # A run that was cancelled must leave no model behind; the workers die with their launcher.
            process.kill()
            raise
    return last
