"""Train in several processes: one per GPU, or one per core where there are fewer GPUs.

Lightning's own launchers start the calling program again for each device, which inside Dagster would repeat the whole
job. So torch's launcher starts workers that know nothing of Dagster: `python -m emotion_assets.steps.training.launch
JOB.json`, below `torch.distributed.run`. Results and errors go to a file for the caller.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytorch_lightning as pl

from emotion_assets.core import errors
from emotion_assets.core.errors import EmotionError
from emotion_assets.core.files import write_json
from emotion_assets.core.layout import DataPaths
from emotion_assets.core.processes import die_with_parent
from emotion_assets.steps.training.checkpoints import is_first_process
from emotion_assets.steps.training.config import TrainingConfig
from emotion_assets.steps.training.export import train_and_export

_logger = logging.getLogger(__name__)

_LOG_MARK: Final = "log: "
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
        job = describe_job(paths, config, code_version, tracker) | {"result": str(result_path)}
        job_path.write_text(json.dumps(job))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(config.devices), "-m", "emotion_assets.steps.training.launch"]
        last_lines = _run([*command, str(job_path)])
        outcome = json.loads(result_path.read_text()) if result_path.exists() else {}
    if bundle_dir := find_bundle(paths, outcome):
        return bundle_dir
    raise RuntimeError(f"Training in {config.devices} processes failed. Last output:\n" + "\n".join(last_lines))


def describe_job(paths: DataPaths, config: TrainingConfig, code_version: str, tracker: str = "none") -> dict[str, Any]:
    """Describe a training for another process, as JSON can hold it."""
    return {
        "root": str(paths.root.absolute()),
        "remote_root": paths.remote_root,
        "config": config.model_dump(),
        "code_version": code_version,
        "tracker": tracker,
    }


def run_job(job: Mapping[str, Any], callbacks: Sequence[pl.Callback] = ()) -> dict[str, str]:
    """Train as one of several processes; return the outcome for `find_bundle`, which is the first process's."""
    try:
        bundle_dir = train_and_export(
            DataPaths(Path(job["root"]), job["remote_root"]),
            TrainingConfig(**job["config"]),
            code_version=job["code_version"],
            tracker=job["tracker"],
            callbacks=callbacks,
        )
    except (EmotionError, FloatingPointError) as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {"version": bundle_dir.name} if bundle_dir else {}


def find_bundle(paths: DataPaths, outcome: Mapping[str, str]) -> Path | None:
    """Return the folder of the bundle that a job has written, None if it has no outcome; or raise its error."""
    if "error" in outcome:
        kind = FloatingPointError if outcome["error"] == "FloatingPointError" else getattr(errors, outcome["error"])
        raise kind(outcome["message"])
    return paths.models / outcome["version"] if outcome else None


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
                last.append(text.removeprefix(_LOG_MARK))
                if text.startswith(_LOG_MARK):
                    _logger.info("%s", last[-1])
        except BaseException:
            # A canceled run must not write a model later; the workers die with their launcher.
            process.kill()
            raise
    return last


def log_to(handler: logging.Handler) -> None:
    """Send what the first of several processes logs to the launcher's log."""
    if is_first_process():
        logger = logging.getLogger("emotion_assets")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


def main() -> int:
    """Train in one of the processes; return the exit status."""
    die_with_parent()
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter(f"{_LOG_MARK}%(message)s"))
    log_to(handler)
    job = json.loads(Path(sys.argv[1]).read_text())
    if outcome := run_job(job):
        write_json(Path(job["result"]), outcome)
    return int("error" in outcome)


if __name__ == "__main__":
    sys.exit(main())
