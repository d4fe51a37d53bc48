"""One of several processes that train together; the launcher starts them, nobody else.

`python -m emotion_assets.steps.training.worker JOB.json`, below `torch.distributed.run`. The first one exports the
bundle. What went wrong is left in a file, so that the launcher can raise it.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Final

from emotion_assets.core.errors import EmotionError
from emotion_assets.core.files import write_json
from emotion_assets.steps.training.checkpoints import remove_run_files, run_key
from emotion_assets.steps.training.config import TrainingConfig
from emotion_assets.steps.training.export import export_bundle
from emotion_assets.steps.training.train import train

LOG_MARK: Final = "log: "
"""Begins the lines that are for the run's log; libraries write to the same stream."""

_PR_SET_PDEATHSIG: Final = 1


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent dies, so that a killed run leaves nobody who writes later."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> int:
    """Train, and export if this is the first process; return the exit status."""
    die_with_parent()
    job = json.loads(Path(sys.argv[1]).read_text())
    is_first = os.environ["RANK"] == "0"
    config = TrainingConfig(**job["config"])

    def log(line: str) -> None:
        if is_first:
            sys.stdout.write(f"{LOG_MARK}{line}\n")
            sys.stdout.flush()

    try:
        trained = train(
            Path(job["splits_dir"]),
            Path(job["work_dir"]),
            config,
            code_version=job["code_version"],
            tracker=job["tracker"],
            log=log,
        )
        if is_first:
            bundle_dir = export_bundle(trained, Path(job["models_dir"]), job["code_version"], log)
            remove_run_files(
                Path(job["work_dir"]) / run_key(trained.data_fingerprint, trained.config, job["code_version"])
            )
            write_json(Path(job["result"]), {"bundle_dir": str(bundle_dir)})
    except (EmotionError, FloatingPointError) as error:
        write_json(Path(job["result"]), {"error": type(error).__name__, "message": str(error)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
