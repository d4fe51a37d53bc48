"""Lightning's trainer for a run: device, checkpoints, logs."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

from emotion_assets.steps.training.callbacks import AtomicCheckpointIO
from emotion_assets.steps.training.checkpoints import CHECKPOINT_NAME
from emotion_assets.steps.training.config import TrainingConfig
from emotion_assets.steps.training.precision import num_local_processes, resolve_accelerator


def build_trainer(
    run_dir: Path,
    config: TrainingConfig,
    precision: str,
    callbacks: list[pl.Callback],
    loggers: list[Logger],
    resumed_from_epoch: int,
) -> pl.Trainer:
    """Return a trainer that writes checkpoint and logs to `run_dir`, with a new CSV log after each resumption."""
    for name in ("pytorch_lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    num_local = num_local_processes(config)
    checkpoints = ModelCheckpoint(
        run_dir,
        filename=Path(CHECKPOINT_NAME).stem,
        every_n_epochs=1,
        enable_version_counter=False,
        # After the epoch is counted: saved earlier, a resumed run would repeat its order of images.
        save_on_train_epoch_end=True,
    )
    return pl.Trainer(
        max_epochs=config.epochs,
        accelerator=resolve_accelerator(config),
        devices=num_local,
        num_nodes=config.devices // num_local,
        strategy="ddp" if config.devices > 1 else "auto",
        use_distributed_sampler=False,  # the batch sampler divides batches itself
        precision=precision,  # type: ignore[arg-type]
        callbacks=[*callbacks, checkpoints],
        plugins=[AtomicCheckpointIO()],
        logger=[
            # CSVLogger deletes existing files of its version, so a resumed run gets a new version.
            CSVLogger(run_dir, name="csv", version=resumed_from_epoch),
            TensorBoardLogger(run_dir, name="tensorboard", version=0),
            *loggers,
        ],
        log_every_n_steps=1,  # small sets have few steps, and logging costs nothing beside a step
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
    )
