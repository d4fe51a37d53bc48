"""Train a network on the splits; continue from the last checkpoint if an equal run was interrupted."""

from __future__ import annotations

import dataclasses
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.files import locked, remove_temporary_files, write_atomically
from emotion_assets.steps.splits.splits import LOCK_NAME, Split, read_manifest, read_split
from emotion_assets.steps.training.calibration import fit_temperature, least_log_loss_temperature, predict_logits
from emotion_assets.steps.training.checkpoints import (
    CHECKPOINT_NAME,
    ORIENTATION_DIR,
    TEACHER_NAME,
    RunCost,
    completed_epochs,
    is_first_process,
    remove_run_files,
    run_key,
)
from emotion_assets.steps.training.config import TrainingConfig
from emotion_assets.steps.training.model import EmotionNet, OrientationNet
from emotion_assets.steps.training.module import (
    EmotionDataModule,
    EmotionModule,
    EpochLogger,
    RunningWeightAverage,
    Teacher,
)
from emotion_assets.steps.training.orientation import ORIENTATION_EPOCHS, OrientationModule
from emotion_assets.steps.training.trackers import build_loggers, check_tracker, finish
from emotion_assets.steps.training.trainer import build_trainer, resolve_precision

_ORIENTATION_TIME_FRACTION: Final = 0.1
"""Of a limited time, what the network of orientations gets."""
_TEMPERATURE: Final = "temperature"
_SEEDS_APART: Final = 1_000_000
"""Between the seeds of a run's networks, so that no two runs with seeds next to each other share a teacher."""


@dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """A network after training, with what is needed to judge and to repeat it."""

    network: EmotionNet
    temperature: float
    """Divides the logits; set on validation faces."""
    orientation: OrientationNet | None
    """Tells how faces are to be put right, if that was asked for."""
    data_fingerprint: str
    config: TrainingConfig
    history: list[dict[str, float]]
    precision: str
    resumed_from_epoch: int
    """0 if the training of this network began from scratch; its teachers' do not count."""
    train: Split
    """The faces that it was fitted to."""
    val: Split
    """The validation faces that it was calibrated on."""
    seconds: float
    """Of all networks, teachers included; of an interrupted run also what led up to its last finished epoch."""
    cpu_seconds: float
    """In that time, of all processes: the first one's times their number."""


@dataclass(frozen=True, slots=True)
class _Run:
    """What every network of a run shares: the faces, and where its files lie."""

    train: Split
    val: Split
    fingerprint: str
    work_dir: Path
    code_version: str
    tracker: str
    callbacks: Sequence[pl.Callback]

    def run_dir(self, config: TrainingConfig) -> Path:
        return self.work_dir / run_key(self.fingerprint, config, self.code_version)


def train(
    splits_dir: Path,
    work_dir: Path,
    config: TrainingConfig,
    *,
    code_version: str = "",
    tracker: str = "none",
    callbacks: Sequence[pl.Callback] = (),
    log: Callable[[str], None] = lambda _: None,
) -> TrainedNetwork:
    """Train on the `train` split, watch and calibrate on `val`.

    Args:
        splits_dir: written by `make_splits`.
        work_dir: has a folder for each run: its checkpoint while it lasts, and Lightning's CSV and TensorBoard logs.
        config: the choices of the run.
        code_version: a checkpoint of other code is not used.
        tracker: where the curves go beside files: `none`, `wandb` or `mlflow`.
        callbacks: more of Lightning's.
        log: gets a line an epoch.

    Raises:
        UnusableDataError: there are no splits, their files are damaged, or there is no such tracker.
        FloatingPointError: the loss became infinite or not a number.
    """
    check_tracker(tracker)
    # Under the lock of make_splits, so that both splits and the fingerprint belong together.
    with locked(splits_dir / LOCK_NAME):
        fingerprint = str(read_manifest(splits_dir)["fingerprint"])
        train_split, val_split = read_split(splits_dir, "train"), read_split(splits_dir, "val")
    if config.devices > 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        raise UnusableDataError(
            f"devices is {config.devices}: train_bundle starts the processes, train is one of them."
        )
    if len(val_split.pixels) == 0:
        raise UnusableDataError("The val split is empty. Add images and materialize greyscale_splits again.")
    run = _Run(train_split, val_split, fingerprint, work_dir, code_version, tracker, callbacks)
    if is_first_process():
        remove_temporary_files(run.run_dir(config))
    cost = RunCost(run.run_dir(config), config.devices)

    def log_and_note(line: str) -> None:
        log(line)
        cost.note()

    teachers = [_teacher(number, run, config, log_and_note) for number in range(config.num_teachers)]
    trained = _fit_network(run, config, teachers, log_and_note)
    orientation = _orientation(run, config, log_and_note) if config.corrects_orientation else None
    seconds, cpu_seconds = cost.total()
    return dataclasses.replace(trained, orientation=orientation, seconds=seconds, cpu_seconds=cpu_seconds)


def _teacher(number: int, run: _Run, config: TrainingConfig, log: Callable[[str], None]) -> Teacher:
    """Train a network that the one that is kept learns from, or take it up again if it is finished.

    It learns from plain labels: smoothing wipes out how alike emotions are (Müller et al. 2019, "When does label
    smoothing help?").
    """
    title = f"Teacher {number + 1} of {config.num_teachers}"
    run_dir = run.run_dir(config)
    path = run_dir / TEACHER_NAME.format(number)
    own = dataclasses.replace(
        config, num_teachers=0, label_smoothing=0.0, seed=config.seed + _SEEDS_APART * (number + 1)
    )
    if path.exists():
        log(f"{title} is finished already")
    else:
        its_run = dataclasses.replace(run, work_dir=run_dir, tracker="none", callbacks=())
        trained = _fit_network(
            its_run,
            own,
            (),
            lambda line: log(f"{title}: {line}"),
            num_sharing=config.num_teachers + 1,
            calibrate=least_log_loss_temperature,  # that is how its answers are learnt
        )
        if is_first_process():
            weights = {name: value.contiguous() for name, value in trained.network.state_dict().items()}
            write_atomically(
                path, save_tensors(weights | {_TEMPERATURE: torch.tensor(trained.temperature, dtype=torch.float64)})
            )
            remove_run_files(its_run.run_dir(own))
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
    # All processes take the same one, as they do when the run is taken up again: averages of statistics differ by
    # process.
    weights = load_tensors(path.read_bytes())
    temperature = float(weights.pop(_TEMPERATURE))
    network = EmotionNet(own.width, own.dropout, own.num_blocks)
    network.load_state_dict(weights)
    network.eval().requires_grad_(requires_grad=False)
    return Teacher(network.to(memory_format=torch.channels_last), temperature)  # type: ignore[call-overload]


def _fit_network(
    run: _Run,
    config: TrainingConfig,
    teachers: Sequence[Teacher],
    log: Callable[[str], None],
    *,
    num_sharing: int | None = None,
    calibrate: Callable[[npt.NDArray[np.float32], npt.NDArray[np.int64]], float] = fit_temperature,
) -> TrainedNetwork:
    """Train one network, one of `num_sharing` that fraction the time; by default of its teachers and itself."""
    _seed(config)
    network = EmotionNet(config.width, config.dropout, config.num_blocks)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fraction = (1 - _ORIENTATION_TIME_FRACTION * config.corrects_orientation) / (num_sharing or config.num_teachers + 1)
    module = EmotionModule(network, _with_time_fraction(config, fraction), teachers)
    started, cpu_started = time.monotonic(), time.process_time()
    precision = resolve_precision(config)
    resumed_from_epoch = _run_training(run, run.run_dir(config), config, module, log)
    return TrainedNetwork(
        network=network,
        temperature=calibrate(predict_logits(network, run.val), run.val.class_indices),
        orientation=None,
        data_fingerprint=run.fingerprint,
        config=config,
        history=module.history,
        precision=precision,
        resumed_from_epoch=resumed_from_epoch,
        train=run.train,
        val=run.val,
        seconds=time.monotonic() - started,
        cpu_seconds=time.process_time() - cpu_started,
    )


def _orientation(run: _Run, config: TrainingConfig, log: Callable[[str], None]) -> OrientationNet:
    """Train the network that tells which way up faces are."""
    own = dataclasses.replace(config, epochs=min(config.epochs, ORIENTATION_EPOCHS))
    _seed(config)
    network = OrientationNet()
    module = OrientationModule(network, _with_time_fraction(own, _ORIENTATION_TIME_FRACTION))
    its_run = dataclasses.replace(run, tracker="none", callbacks=())
    _run_training(
        its_run, run.run_dir(config) / ORIENTATION_DIR, own, module, lambda line: log(f"Orientations: {line}")
    )
    return network


def _run_training(
    run: _Run, run_dir: Path, config: TrainingConfig, module: EmotionModule, log: Callable[[str], None]
) -> int:
    """Train the network of `module`, or continue with it, until it is done; return from which epoch, 0 for a fresh run."""
    checkpoint_path = run_dir / CHECKPOINT_NAME
    precision = resolve_precision(config)
    resumed_from_epoch = completed_epochs(checkpoint_path)
    if resumed_from_epoch:
        log(f"Going on after epoch {resumed_from_epoch} of an interrupted run with the same data and configuration")
    else:
        log(f"Starting from scratch on {len(run.train.pixels):,} images, precision {precision}")
    data = EmotionDataModule(run.train, run.val, config)
    all_callbacks: list[pl.Callback] = [EpochLogger(log), *run.callbacks]
    num_averaged = config.averaging_fraction * config.epochs * len(data.train_dataloader())
    if num_averaged >= 1:
        all_callbacks.append(RunningWeightAverage(round(num_averaged)))
    loggers = build_loggers(run.tracker, run_dir, config)
    trainer = build_trainer(run_dir, config, all_callbacks, loggers, resumed_from_epoch)
    with warnings.catch_warnings():
        # Lightning advises loader workers; batches are slices of an array in memory, workers would cost more.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        # A folder of checkpoints that is not empty is what resuming means.
        warnings.filterwarnings("ignore", ".*exists and is not empty.*")
        warnings.filterwarnings("ignore", ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*")
        resume = str(checkpoint_path) if resumed_from_epoch else None
        try:
            trainer.fit(module, datamodule=data, ckpt_path=resume)
        finally:
            finish(run.tracker)
    module.network.cpu().eval()
    return resumed_from_epoch


def _seed(config: TrainingConfig) -> None:
    pl.seed_everything(config.seed, verbose=False)
    torch.use_deterministic_algorithms(True, warn_only=True)


def _with_time_fraction(config: TrainingConfig, fraction: float) -> TrainingConfig:
    """Leave a run that fraction of its time, if its time is limited."""
    minutes = config.max_minutes
    return config if minutes is None else dataclasses.replace(config, max_minutes=minutes * fraction)
