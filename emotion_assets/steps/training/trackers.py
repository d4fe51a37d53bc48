"""Where a run's curves go beside its own files: Weights & Biases or MLflow, for those who use them."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from pathlib import Path
from typing import Final

from lightning.pytorch.loggers import Logger

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.steps.training.config import TrainingConfig

TRACKERS: Final = ("none", "wandb", "mlflow")

_PROJECT: Final = "emotion_cnn"


def check_tracker(name: str) -> None:
    """Say at once, and not after hours of training, that a tracker cannot be had.

    Raises:
        UnusableDataError: there is no such tracker, or its package is missing.
    """
    if name not in TRACKERS:
        raise UnusableDataError(f"There is no tracker {name!r}. Use one of {', '.join(TRACKERS)}.")
    if name != "none" and importlib.util.find_spec(name) is None:
        message = f"The tracker {name} is not installed. Run: pip install '.[{name}]' -c constraints.txt"
        raise UnusableDataError(message)


def build_loggers(name: str, run_dir: Path, config: TrainingConfig) -> list[Logger]:
    """Return the logger of a tracker, or none; it begins with the run's configuration.

    Both work without a network: Weights & Biases writes below the run's folder unless WANDB_MODE says otherwise
    (`wandb sync` sends it later), MLflow into a database there unless MLFLOW_TRACKING_URI names a server.

    Args:
        name: one of TRACKERS.
        run_dir: the folder of the run.
        config: the choices of the run.

    Raises:
        UnusableDataError: as `check_tracker`.
    """
    check_tracker(name)
    if name == "none":
        return []
    logger: Logger
    run_dir.mkdir(parents=True, exist_ok=True)
    if name == "wandb":
        from lightning.pytorch.loggers import WandbLogger

        is_offline = os.environ.get("WANDB_MODE", "offline") != "online"
        logger = WandbLogger(project=_PROJECT, save_dir=run_dir, offline=is_offline)
    else:
        from lightning.pytorch.loggers import MLFlowLogger

        address = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{run_dir / 'mlflow.db'}")
        logger = MLFlowLogger(_PROJECT, tracking_uri=address, artifact_location=str(run_dir / "mlflow"))
    logger.log_hyperparams(dataclasses.asdict(config))
    return [logger]


def finish(name: str) -> None:
    """End the run of a tracker and wait until it is written; another run in this process would join it otherwise."""
    if name == "wandb":
        import wandb

        wandb.finish()
