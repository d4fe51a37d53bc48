"""Lightning's trainer for a run: device, precision, checkpoints, logs."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from emotion_assets.steps.training.checkpoints import CHECKPOINT_NAME
from emotion_assets.steps.training.config import TrainingConfig
from emotion_assets.steps.training.module import AtomicCheckpointIO


def resolve_accelerator(config: TrainingConfig) -> str:
    """Return Lightning's name of what a run is carried out on: GPUs if there are as many as processes, else cores."""
    if config.devices == 1:
        return "auto"
    return "cuda" if torch.cuda.device_count() >= config.devices else "cpu"


def resolve_precision(config: TrainingConfig) -> str:
    """Return Lightning's name of a precision: 16 bits where the device multiplies them faster, else `32-true`."""
    if config.precision != "auto":
        return config.precision
    if torch.cuda.is_available() and resolve_accelerator(config) != "cpu":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    capabilities = torch.cpu.get_capabilities()
    is_faster = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))
    return "bf16-mixed" if is_faster else "32-true"


def build_trainer(
    run_dir: Path, config: TrainingConfig, callbacks: list[pl.Callback], loggers: list[Logger], resumed_from_epoch: int
) -> pl.Trainer:
    """Return the trainer that keeps checkpoint and logs in `run_dir`, a new log for each resumption."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    checkpoints = ModelCheckpoint(
        run_dir,
        filename=Path(CHECKPOINT_NAME).stem,
        every_n_epochs=1,
        enable_version_counter=False,
        # After the epoch is counted: saved before that, a resumed run would repeat its order of images.
        save_on_train_epoch_end=True,
    )
    return pl.Trainer(
        max_epochs=config.epochs,
        accelerator=resolve_accelerator(config),
        devices=config.devices,
        strategy="ddp" if config.devices > 1 else "auto",
        use_distributed_sampler=False,  # our batches are shared out already
        precision=resolve_precision(config),  # type: ignore[arg-type]
        callbacks=[*callbacks, checkpoints],
        plugins=[AtomicCheckpointIO()],
        logger=[
            # It removes what it finds, so a run that is taken up again writes beside the earlier lines.
            CSVLogger(run_dir, name="csv", version=resumed_from_epoch),
            TensorBoardLogger(run_dir, name="tensorboard", version=0),
            *loggers,
        ],
        log_every_n_steps=1,  # small sets have few steps; a line in a file costs nothing beside a step
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
    )
