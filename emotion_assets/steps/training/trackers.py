"""Experiment trackers besides the run's own files: Weights & Biases or MLflow."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Final

from pytorch_lightning.loggers import Logger

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.steps.training.config import Tracker, TrainingConfig

_PROJECT: Final = "emotion_cnn"


def check_tracker(name: str) -> None:
    """Fail before the training if a tracker is unavailable.

    Raises:
        UnusableDataError: there is no such tracker, or its package is missing.
    """
    if name not in list(Tracker):
        raise UnusableDataError(f"There is no tracker {name!r}. Use one of {', '.join(Tracker)}.")
    if name != "none" and importlib.util.find_spec(name) is None:
        raise UnusableDataError(f"The tracker {name} is not installed. Run: pip install '.[{name}]' -c constraints.txt")


def build_loggers(name: str, run_dir: Path, config: TrainingConfig) -> list[Logger]:
    """Return the logger of a tracker, none for "none", with the run's configuration logged.

    Both work offline. Weights & Biases writes below `run_dir` unless WANDB_MODE is `online` (`wandb sync` uploads it
    later), MLflow into a database there unless MLFLOW_TRACKING_URI names a server.
    """
    if name == "none":
        return []
    logger: Logger
    run_dir.mkdir(parents=True, exist_ok=True)
    if name == "wandb":
        from pytorch_lightning.loggers import WandbLogger

        is_offline = os.environ.get("WANDB_MODE", "offline") != "online"
        logger = WandbLogger(project=_PROJECT, save_dir=run_dir, offline=is_offline)
    else:
        from pytorch_lightning.loggers import MLFlowLogger

        uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{run_dir / 'mlflow.db'}")
        logger = MLFlowLogger(_PROJECT, tracking_uri=uri, artifact_location=str(run_dir / "mlflow"))
    logger.log_hyperparams(config.model_dump())
    return [logger]


def finish_tracking(name: str) -> None:
    """End the tracker's run and flush it, so that the next run in this process does not join it."""
    if name == "wandb":
        import wandb

        wandb.finish()
