"""What Lightning carries: the network with its loss, batches from memory, and a line per epoch."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, SequentialSampler
from torchmetrics.functional.classification import multiclass_f1_score

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.files import write_atomically
from emotion_assets.steps.splits.splits import Split
from emotion_assets.steps.training.augment import augment
from emotion_assets.steps.training.config import TrainingConfig
from emotion_assets.steps.training.model import INPUT_SIZE_PX, EmotionNet, prepare
from emotion_assets.steps.training.optim import MuonWithAdamW

Batch = tuple[Tensor, Tensor]
_EVALUATION_BATCH: int = 512
_SIDES_PX: Final = ((0.3, 32), (0.6, 40))
_DISTILLATION_WEIGHT: Final = 0.7
"""The part of the loss that comes from teachers; the rest comes from the labels."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all.

    Lightning's own goes through the folder for temporary files; where that is another file system, the last step is a
    copy onto the checkpoint that is there, and a kill in between leaves neither.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Save `checkpoint` at `path`; there are no storage options."""
        del storage_options
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomically(Path(path), buffer.getvalue())


class SplitDataset(Dataset[Batch]):
    """Whole batches straight from the arrays in memory: indexing costs 1 % of decoding every epoch."""

    def __init__(self, split: Split) -> None:
        """Hold the images of `split`."""
        self._pixels = torch.from_numpy(split.pixels)
        self._class_indices = torch.from_numpy(split.class_indices)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._pixels)

    def __getitem__(self, positions: list[int]) -> Batch:
        """Return uint8 pixels (image, 64, 64) and int64 class indices (image,) at `positions`."""
        return self._pixels[positions], self._class_indices[positions]


class ShuffledBatchSampler(Sampler[list[int]]):
    """Positions in random order, a batch at a time; the order depends on the seed and the epoch alone."""

    def __init__(self, num_images: int, batch_size: int, seed: int, rank: int = 0, num_ranks: int = 1) -> None:
        """Deal positions below `num_images` into batches of `batch_size`; of each, one process takes its share."""
        self._num_images, self._batch_size, self._seed = num_images, batch_size, seed
        self._rank, self._num_ranks = rank, num_ranks
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take the order of `epoch`; Lightning calls this, also after it resumed."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return max(1, self._num_images // self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches; what does not fill the last one waits for another epoch."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order = torch.randperm(self._num_images, generator=generator).tolist()
        # A small last batch would make a batch normalization over very few images.
        for number in range(len(self)):
            batch = order[number * self._batch_size : (number + 1) * self._batch_size]
            yield batch[self._rank :: self._num_ranks]


class EmotionDataModule(pl.LightningDataModule):
    """Training and validation batches from two splits."""

    def __init__(self, train: Split, val: Split, config: TrainingConfig) -> None:
        """Keep both splits in memory as they are, one byte a pixel."""
        super().__init__()
        self._train, self._val, self._config = SplitDataset(train), SplitDataset(val), config

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return shuffled batches."""
        rank, num_ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = ShuffledBatchSampler(len(self._train), self._config.batch_size, self._config.seed, rank, num_ranks)
        return DataLoader(self._train, batch_size=None, sampler=sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation images in order."""
        return DataLoader(
            self._val, batch_size=None, sampler=BatchSampler(SequentialSampler(self._val), _EVALUATION_BATCH, False)
        )


@dataclass(frozen=True, slots=True)
class Teacher:
    """A trained network whose calibrated answers another one learns from (Hinton et al. 2015).

    It is asked about the very views that the student sees (Beyer et al. 2022, "A good teacher is patient and
    consistent"). Where a label is wrong, its doubt is the better target.
    """

    network: EmotionNet
    temperature: float

    def answer(self, views: Tensor) -> Tensor:
        """Return probabilities, float32 (image, emotion), for what `EmotionNet.forward` takes."""
        with torch.no_grad():
            logits: Tensor = self.network(views).float()
        return (logits / self.temperature).softmax(dim=1)


class EmotionModule(pl.LightningModule):
    """A network with its loss, its schedule and its validation scores."""

    num_classes = len(EMOTIONS)

    def __init__(self, network: nn.Module, config: TrainingConfig, teachers: Sequence[Teacher] = ()) -> None:
        """Train `network` as `config` says, with the help of `teachers`."""
        super().__init__()
        self.network = network
        self.config = config
        self._teachers = tuple(teachers)
        self.history: list[dict[str, float]] = []
        self._started = time.monotonic()
        self._seconds_before = 0.0
        self._losses: list[Tensor] = []
        self._validated: list[tuple[Tensor, Tensor]] = []
        self._generator = torch.Generator()
        self._progress_now = 0.0

    def configure_optimizers(self) -> MuonWithAdamW:
        """Return the optimizer; `on_train_batch_start` sets its rates."""
        return MuonWithAdamW(
            self.network,
            learning_rate=self.config.learning_rate,
            adam_learning_rate=self.config.adam_learning_rate,
            weight_decay=self.config.weight_decay,
            work_dtype=torch.bfloat16 if "bf16" in str(self.trainer.precision) else torch.float32,
        )

    @property
    def progress(self) -> float:
        """The fraction of the run that is done, 0..1, by steps or by time, whichever is further."""
        progress: float = self.trainer.global_step / max(1, int(self.trainer.estimated_stepping_batches))
        if self.config.max_minutes is not None:
            by_time = (time.monotonic() - self._started) / 60 / self.config.max_minutes
            # All processes have to end at the same step, so the first one's clock counts.
            progress = max(progress, self.trainer.strategy.broadcast(by_time))
        return min(1.0, progress)

    def on_fit_start(self) -> None:
        """Bring the teachers to where the images are; Lightning does not know them. Make views there, too."""
        if self.device.type == "cuda":
            self._generator = torch.Generator(self.device)
        for teacher in self._teachers:
            teacher.network.to(self.device)

    def on_train_start(self) -> None:
        """Start the clock of `max_minutes`, or let it continue where an interrupted run stopped."""
        self._started = time.monotonic() - self._seconds_before
        # A run whose time was up, taken up again because of what comes after it, must not learn on.
        if self.config.max_minutes is not None and self._seconds_before >= 60 * self.config.max_minutes:
            self.trainer.should_stop = True

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the learning rates and seed the step.

        Augmentation and dropout depend on seed and step alone, so a resumed run continues like an unbroken one.
        """
        del batch, batch_idx
        # Several processes see other images, so they also need other chances.
        step = self.trainer.global_step + 1_000_000_007 * self.global_rank
        torch.manual_seed(self.config.seed * 9_999_991 + step)
        self._generator.manual_seed(self.config.seed * 7_368_787 + step)
        progress = self._progress_now = self.progress
        factor = learning_rate_factor(progress, self.config.warmup_fraction)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["peak_lr"] * factor
        if progress >= 1:
            self.trainer.should_stop = True

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the cross-entropy of one augmented batch with smoothed labels, and with teachers' answers if any."""
        del batch_idx
        pixels, class_indices = batch
        side_px = training_side_px(self._progress_now) if self.config.is_progressive else INPUT_SIZE_PX
        views = self._views(pixels, side_px).to(self.device)
        views = views.contiguous(memory_format=torch.channels_last)
        logits = self.network(views)
        loss = functional.cross_entropy(logits.float(), class_indices, label_smoothing=self.config.label_smoothing)
        if self._teachers:
            answers = torch.stack([teacher.answer(views) for teacher in self._teachers])
            taught = functional.cross_entropy(logits.float(), answers.mean(dim=0))
            loss = (1 - _DISTILLATION_WEIGHT) * loss + _DISTILLATION_WEIGHT * taught
        return self._record_loss(loss)

    def _views(self, pixels: Tensor, side_px: int) -> Tensor:
        """Augment a batch where the generator is: on the processor, unless a GPU of CUDA does it faster."""
        return augment(pixels.to(self._generator.device), side_px, self._generator)

    def _record_loss(self, loss: Tensor) -> Tensor:
        """Keep a step's loss for the record, and stop if it is none."""
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"The loss became {loss.item()} in epoch {self.current_epoch}, step {self.global_step}. "
                f"Nothing is kept. Lower learning_rate (now {self.config.learning_rate})."
            )
        self._losses.append(loss.detach())
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect logits; the scores are computed over the whole split."""
        del batch_idx
        pixels, class_indices = batch
        logits = self.network(prepare(pixels).contiguous(memory_format=torch.channels_last))
        self._validated.append((logits.float(), class_indices))

    def on_validation_epoch_end(self) -> None:
        """Log loss, accuracy and macro-F1 of the validation split, and keep them for the learning curves."""
        logits = torch.cat([pair[0] for pair in self._validated])
        class_indices = torch.cat([pair[1] for pair in self._validated])
        self._validated.clear()
        scores = {
            "val/loss": functional.cross_entropy(logits, class_indices),
            "val/accuracy": (logits.argmax(dim=1) == class_indices).float().mean(),
            "val/macro_f1": multiclass_f1_score(logits, class_indices, self.num_classes),
        }
        self.log_dict(scores, prog_bar=True)
        train_loss = torch.stack(self._losses).mean().item() if self._losses else 0.0
        self._losses.clear()
        self.history.append(
            {
                "epoch": self.current_epoch + 1,
                "train/loss": round(train_loss, 5),
                **{name: round(score.item(), 5) for name, score in scores.items()},
                "seconds": round(time.monotonic() - self._started, 1),
            }
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let a resumed run keep its learning curves and its clock."""
        checkpoint["history"] = self.history
        checkpoint["seconds"] = time.monotonic() - self._started

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take learning curves and clock up again."""
        self.history = list(checkpoint["history"])
        self._seconds_before = float(checkpoint["seconds"])


class RunningWeightAverage(WeightAveraging):
    """Validate and keep a running mean of the weights, which is ahead of the last ones (Polyak and Juditsky 1992)."""

    def __init__(self, num_steps: int) -> None:
        """Average over about the last `num_steps` steps, but over a tenth of those done at most."""

        def average(averaged: list[Tensor], current: list[Tensor], num_averaged: Tensor | int) -> None:
            # A mean over the last tenth at first, so that the random start is soon forgotten.
            weight = max(1 / num_steps, 1 / (1 + int(num_averaged) / 10))
            get_ema_multi_avg_fn(1 - weight)(averaged, current, num_averaged)  # type: ignore[no-untyped-call]

        super().__init__(multi_avg_fn=average)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Bring the mean to where the network is: Lightning makes it before it moves the network to a GPU."""
        del trainer
        assert self._average_model is not None
        self._average_model.to(pl_module.device)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hand the mean over also where a finished run is taken up again: Lightning then skips the training's end."""
        del trainer
        self._copy_average_to_current(pl_module)


class EpochLogger(pl.Callback):
    """Tell a person, in one line an epoch, how the training goes."""

    def __init__(self, log: Callable[[str], None]) -> None:
        """Send each line to `log`."""
        self._log = log

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the line."""
        assert isinstance(pl_module, EmotionModule)
        if pl_module.history:
            last = pl_module.history[-1]
            self._log(
                f"Epoch {last['epoch']:.0f} of {trainer.max_epochs}: train loss {last['train/loss']:.3f}, "
                f"val accuracy {last['val/accuracy']:.3f}, macro-F1 {last['val/macro_f1']:.3f}, "
                f"{last['seconds']:.0f} s"
            )


def training_side_px(progress: float) -> int:
    """Return the side of the training images at `progress` 0..1: small ones teach the coarse things cheaply."""
    for until, side_px in _SIDES_PX:
        if progress < until:
            return side_px
    return INPUT_SIZE_PX


def learning_rate_factor(progress: float, warmup_fraction: float) -> float:
    """Return the factor on the peak learning rate at `progress` 0..1: up in a line, down in a cosine."""
    if progress < warmup_fraction:
        return max(progress, 1e-3) / warmup_fraction
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup_fraction) / (1 - warmup_fraction)))
