"""One of several processes that train together, started by `launch`.

`python -m emotion_assets.steps.training.worker JOB.json`, below `torch.distributed.run`. The first process exports the
bundle. Results and errors go to a file for the launcher.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from emotion_assets.core.errors import EmotionError
from emotion_assets.core.files import write_json
from emotion_assets.core.layout import DataPaths
from emotion_assets.core.processes import die_with_parent
from emotion_assets.steps.training.checkpoints import is_first_process
from emotion_assets.steps.training.config import TrainingConfig
from emotion_assets.steps.training.launch import LOG_MARK
from emotion_assets.steps.training.run import train_and_export


def main() -> int:
    """Train, and export if this is the first process; return the exit status."""
    die_with_parent()
    job = json.loads(Path(sys.argv[1]).read_text())
    if is_first_process():
        _log_to_launcher()
    try:
        bundle_dir = train_and_export(
            DataPaths(Path(job["root"])),
            TrainingConfig(**job["config"]),
            code_version=job["code_version"],
            tracker=job["tracker"],
        )
        if bundle_dir:
            write_json(Path(job["result"]), {"bundle_dir": str(bundle_dir)})
    except (EmotionError, FloatingPointError) as error:
        write_json(Path(job["result"]), {"error": type(error).__name__, "message": str(error)})
        return 1
    return 0


def _log_to_launcher() -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter(f"{LOG_MARK}%(message)s"))
    logger = logging.getLogger("emotion_assets")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


if __name__ == "__main__":
    sys.exit(main())
