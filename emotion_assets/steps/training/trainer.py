"""Lightning's trainer for a run, with the project's own checkpoints, weight averaging and progress."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint, WeightAveraging
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from emotion_assets.core.files import write_atomically
from emotion_assets.steps.training.checkpoints import CHECKPOINT_NAME, RunCost
from emotion_assets.steps.training.config import TrainingConfig
from emotion_assets.steps.training.module import EmotionModule
from emotion_assets.steps.training.precision import num_local_processes, resolve_accelerator, work_done

_logger = logging.getLogger(__name__)


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


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write each checkpoint completely or not at all.

    Lightning writes to the folder for temporary files first. Where that is another file system, it then copies over
    the existing checkpoint, and a kill during the copy destroys both.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Save `checkpoint` at `path`; there are no storage options."""
        del storage_options
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomically(Path(path), buffer.getvalue())


class RunningWeightAverage(WeightAveraging):
    """Validate and keep a running mean of the weights (Polyak and Juditsky 1992)."""

    def __init__(self, num_steps: int) -> None:
        """Average over about the last `num_steps` steps, but at most over a tenth of the steps so far."""

        def average(averaged: list[Tensor], current: list[Tensor], num_averaged: Tensor | int) -> None:
            # The tenth lets the random initialization decay quickly.
            weight = max(1 / num_steps, 1 / (1 + int(num_averaged) / 10))
            get_ema_multi_avg_fn(1 - weight)(averaged, current, num_averaged)  # type: ignore[no-untyped-call]

        super().__init__(multi_avg_fn=average)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Move the mean to the network's device; Lightning creates it before it moves the network."""
        del trainer
        assert self._average_model is not None
        self._average_model.to(pl_module.device)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Copy the mean to the network; Lightning skips its own copy when a finished run is resumed."""
        del trainer
        self._copy_average_to_current(pl_module)


class EpochLogger(pl.Callback):
    """Log one line per epoch, and record what the run has cost so far."""

    def __init__(self, prefix: str, cost: RunCost) -> None:
        """Begin each line with `prefix`."""
        self._prefix, self._cost = prefix, cost

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the cost, and log scores and time."""
        assert isinstance(pl_module, EmotionModule)
        self._cost.record()
        if pl_module.history:
            last = pl_module.history[-1]
            _logger.info(
                "%sEpoch %.0f of %s: train loss %.3f, val accuracy %.3f, macro-F1 %.3f, %.0f s, %s left",
                self._prefix,
                last["epoch"],
                trainer.max_epochs,
                *(last[name] for name in ("train/loss", "val/accuracy", "val/macro_f1", "seconds")),
                format_duration(_seconds_left(pl_module, last["seconds"])),
            )


def format_duration(seconds: float) -> str:
    """Return a duration as people say it."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _seconds_left(module: EmotionModule, seconds: float) -> float:
    """Return the seconds until this network is trained, if the rest goes as the first epochs did."""
    limit = module.config.max_minutes
    done = max(work_done(module.config, module.progress), 1e-6)
    left = seconds * (1 - done) / done
    return left if limit is None else max(min(left, 60 * limit - seconds), 0.0)
