"""Train a network on the splits; resume from the last checkpoint if an equal run was interrupted."""

from __future__ import annotations

import dataclasses
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.files import locked, remove_temporary_files, write_atomically
from emotion_assets.core.limits import count_cpus
from emotion_assets.steps.splits.splits import LOCK_NAME, Split, read_manifest, read_split
from emotion_assets.steps.training.calibration import fit_log_loss_temperature, fit_temperature, predict_logits
from emotion_assets.steps.training.checkpoints import (
    CHECKPOINT_NAME,
    ORIENTATION_DIR,
    TEACHER_NAME,
    RunCost,
    count_completed_epochs,
    is_first_process,
    remove_run_files,
    run_key,
    share_first_file,
)
from emotion_assets.steps.training.config import TrainingConfig
from emotion_assets.steps.training.datamodule import EmotionDataModule
from emotion_assets.steps.training.model import EmotionNet, OrientationNet
from emotion_assets.steps.training.module import ORIENTATION_EPOCHS, EmotionModule, OrientationModule, Teacher
from emotion_assets.steps.training.precision import estimate_seconds, measured_cost, resolve_precision, uses_gpu
from emotion_assets.steps.training.trackers import build_loggers, check_tracker, finish_tracking
from emotion_assets.steps.training.trainer import EpochLogger, RunningWeightAverage, build_trainer, format_duration

_logger = logging.getLogger(__name__)

_ORIENTATION_TIME_FRACTION: Final = 0.1
"""Part of `max_minutes` that the orientation network gets."""
_TEMPERATURE: Final = "temperature"
_SEED_STRIDE: Final = 1_000_000
"""Between the seeds of a run's networks, so that runs with neighboring seeds share no teacher."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the networks of a run share; teachers and the orientation network have a prefix, and no tracker."""

    train: Split
    val: Split
    titles: tuple[str, ...]
    """Display names of the classes."""
    fingerprint: str
    work_dir: Path
    code_version: str
    precision: str
    cost: RunCost
    tracker: str = "none"
    callbacks: Sequence[pl.Callback] = ()
    log_prefix: str = ""

    def folder(self, config: TrainingConfig) -> Path:
        """Return the folder of a network's checkpoint and logs."""
        return self.work_dir / run_key(self.fingerprint, config, self.code_version)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedNetwork:
    """A network after training, with what is needed to evaluate and to repeat it."""

    run: Run
    config: TrainingConfig
    network: EmotionNet
    temperature: float
    """Divides the logits; fitted on the validation split."""
    orientation: OrientationNet | None = None
    history: list[dict[str, float]]
    resumed_from_epoch: int
    """0 if this network was trained from scratch, whatever its teachers were."""
    seconds: float = 0.0
    """Of all networks, teachers included, and of earlier interrupted attempts up to their last finished epoch."""
    cpu_seconds: float = 0.0
    """The same for CPU time: the first process's, times the number of processes."""


def train(
    splits_dir: Path,
    work_dir: Path,
    config: TrainingConfig,
    *,
    code_version: str = "",
    tracker: str = "none",
    callbacks: Sequence[pl.Callback] = (),
) -> TrainedNetwork:
    """Train on the train split; validate and calibrate on the val split.

    Args:
        splits_dir: written by `make_splits`.
        work_dir: gets a folder for each run: its checkpoint until it ends, and Lightning's CSV and TensorBoard logs.
        config: the choices of the run.
        code_version: a checkpoint of other code is not used.
        tracker: one of Tracker.
        callbacks: further callbacks of the final network's trainer.

    Raises:
        UnusableDataError: there are no splits, their files are damaged, or the tracker is unavailable.
        FloatingPointError: the loss became infinite or NaN.
    """
    check_tracker(tracker)
    # torch knows the affinity, but no quota of a container.
    torch.set_num_threads(min(torch.get_num_threads(), count_cpus()))
    # Under the lock of make_splits, so that both splits and the fingerprint belong together.
    with locked(splits_dir / LOCK_NAME):
        manifest = read_manifest(splits_dir)
        train_split, val_split = read_split(splits_dir, "train"), read_split(splits_dir, "val")
    fingerprint = str(manifest["fingerprint"])
    if config.devices > 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        raise UnusableDataError(f"devices is {config.devices}, but train is one process. Call train_bundle instead.")
    if len(val_split.pixels) == 0:
        raise UnusableDataError("The val split is empty. Add images and materialize greyscale_splits again.")
    run_dir = work_dir / run_key(fingerprint, config, code_version)
    is_new = not run_dir.exists()
    if is_first_process():
        remove_temporary_files(run_dir)
    run = Run(
        train=train_split,
        val=val_split,
        titles=tuple(manifest["titles"]),
        fingerprint=fingerprint,
        work_dir=work_dir,
        code_version=code_version,
        precision=resolve_precision(config, work_dir),
        cost=RunCost(run_dir, config.devices),
        tracker=tracker,
        callbacks=callbacks,
    )
    if is_new and not uses_gpu(config) and is_first_process():
        _log_estimated_duration(run, config)
    teachers = [_train_teacher(number, run, config) for number in range(config.num_teachers)]
    trained = _train_network(run, config, teachers)
    orientation = _train_orientation(run, config) if config.corrects_orientation else None
    seconds, cpu_seconds = run.cost.total()
    return dataclasses.replace(trained, orientation=orientation, seconds=seconds, cpu_seconds=cpu_seconds)


def _log_estimated_duration(run: Run, config: TrainingConfig) -> None:
    milliseconds = measured_cost(config, run.work_dir).milliseconds.get(run.precision)
    if milliseconds:
        seconds = estimate_seconds(config, len(run.train.pixels), milliseconds / 1000 / config.devices)
        duration = format_duration(max(1, seconds))
        _logger.info("Training will take about %s on this machine if nothing else runs", duration)


def _train_teacher(number: int, run: Run, config: TrainingConfig) -> Teacher:
    """Train a teacher, or load it if it is finished.

    It learns without label smoothing, which would erase the similarities between classes (Müller et al. 2019, "When
    does label smoothing help?").
    """
    title = f"Teacher {number + 1} of {config.num_teachers}"
    run_dir = run.folder(config)
    path = run_dir / TEACHER_NAME.format(number)
    seed = config.seed + _SEED_STRIDE * (number + 1)
    own = config.model_copy(update={"num_teachers": 0, "label_smoothing": 0.0, "seed": seed})
    share_first_file(path)
    if path.exists():
        _logger.info("%s is finished already", title)
    else:
        own_run = dataclasses.replace(run, work_dir=run_dir, tracker="none", callbacks=(), log_prefix=f"{title}: ")
        # Soft targets are best with the temperature of the smallest log loss.
        trained = _train_network(own_run, own, (), config.num_teachers + 1, fit_log_loss_temperature)
        if is_first_process():
            weights = {name: value.contiguous() for name, value in trained.network.state_dict().items()}
            weights[_TEMPERATURE] = torch.tensor(trained.temperature, dtype=torch.float64)
            write_atomically(path, save_tensors(weights))
            remove_run_files(own_run.folder(own))
        share_first_file(path)
    # All processes load the first one's teacher: the running statistics of batch normalization differ by process.
    weights = load_tensors(path.read_bytes())
    temperature = float(weights.pop(_TEMPERATURE))
    network = _build_network(run, own)
    network.load_state_dict(weights)
    network.eval().requires_grad_(requires_grad=False)
    return Teacher(network.to(memory_format=torch.channels_last), temperature)  # type: ignore[call-overload]


def _train_network(
    run: Run,
    config: TrainingConfig,
    teachers: Sequence[Teacher],
    num_sharing: int | None = None,
    calibrate: Callable[[npt.NDArray[np.float32], npt.NDArray[np.int64]], float] = fit_temperature,
) -> TrainedNetwork:
    """Train one of `num_sharing` networks that share `max_minutes`; by default its teachers and itself."""
    _seed_everything(config)
    network = _build_network(run, config)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fraction = (1 - _ORIENTATION_TIME_FRACTION * config.corrects_orientation) / (num_sharing or config.num_teachers + 1)
    weights = class_weights(run.train) if config.class_weighting == "balanced" else None
    module = EmotionModule(network, _limit_time(config, fraction), teachers, weights)
    resumed_from_epoch = _fit(run, run.folder(config), config, module)
    return TrainedNetwork(
        run=run,
        config=config,
        network=network,
        temperature=calibrate(predict_logits(network, run.val), run.val.class_indices),
        history=module.history,
        resumed_from_epoch=resumed_from_epoch,
    )


def _train_orientation(run: Run, config: TrainingConfig) -> OrientationNet:
    """Train the orientation network."""
    own = config.model_copy(update={"epochs": min(config.epochs, ORIENTATION_EPOCHS)})
    _seed_everything(config)
    network = OrientationNet()
    module = OrientationModule(network, _limit_time(own, _ORIENTATION_TIME_FRACTION))
    own_run = dataclasses.replace(run, tracker="none", callbacks=(), log_prefix="Orientation: ")
    _fit(own_run, run.folder(config) / ORIENTATION_DIR, own, module)
    return network


def _fit(run: Run, run_dir: Path, config: TrainingConfig, module: EmotionModule) -> int:
    """Train the network of `module` to the end; return the epoch that it resumed from, 0 for a new run."""
    checkpoint_path = run_dir / CHECKPOINT_NAME
    share_first_file(checkpoint_path)
    resumed_from_epoch = count_completed_epochs(checkpoint_path)
    if resumed_from_epoch:
        _logger.info("%sResuming an interrupted run after epoch %d", run.log_prefix, resumed_from_epoch)
    else:
        num_images = len(run.train.pixels)
        _logger.info("%sStarting on %s images, precision %s", run.log_prefix, f"{num_images:,}", run.precision)
    data = EmotionDataModule(run.train, run.val, config)
    callbacks: list[pl.Callback] = [EpochLogger(run.log_prefix, run.cost), *run.callbacks]
    num_averaged = config.averaging_fraction * config.epochs * len(data.train_dataloader())
    if num_averaged >= 1:
        callbacks.append(RunningWeightAverage(round(num_averaged)))
    loggers = build_loggers(run.tracker, run_dir, config)
    trainer = build_trainer(run_dir, config, run.precision, callbacks, loggers, resumed_from_epoch)
    with warnings.catch_warnings():
        # Batches are slices of an array in memory; worker processes would only add cost.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        # A resumed run finds its own checkpoint in the folder.
        warnings.filterwarnings("ignore", ".*exists and is not empty.*")
        warnings.filterwarnings("ignore", ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*")
        try:
            trainer.fit(module, datamodule=data, ckpt_path=str(checkpoint_path) if resumed_from_epoch else None)
        finally:
            finish_tracking(run.tracker)
    module.network.cpu().eval()
    return resumed_from_epoch


def class_weights(split: Split) -> torch.Tensor:
    """Return the weight of each class in the loss, float (class,), with mean 1 over the images.

    The inverse square root of the frequency, as for sampling in Mahajan et al. 2018, "Exploring the limits of weakly
    supervised pretraining": the inverse itself costs frequent classes more than rare ones gain.
    """
    counts = np.bincount(split.class_indices, minlength=len(split.emotions)) + 1
    weights = counts**-0.5
    return torch.from_numpy(weights / np.average(weights, weights=counts)).float()


def _build_network(run: Run, config: TrainingConfig) -> EmotionNet:
    return EmotionNet(config.width, config.dropout, config.num_blocks, len(run.train.emotions))


def _seed_everything(config: TrainingConfig) -> None:
    pl.seed_everything(config.seed, verbose=False)
    torch.use_deterministic_algorithms(True, warn_only=True)


def _limit_time(config: TrainingConfig, fraction: float) -> TrainingConfig:
    """Leave a network `fraction` of the run's time, if that is limited."""
    minutes = config.max_minutes
    return config if minutes is None else config.model_copy(update={"max_minutes": minutes * fraction})
