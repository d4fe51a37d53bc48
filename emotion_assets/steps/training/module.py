"""The networks with their losses, schedule and validation scores, as Lightning modules."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.functional.classification import multiclass_f1_score

from emotion_assets.steps.training.augment import augment, randomize_orientation
from emotion_assets.steps.training.config import TrainingConfig
from emotion_assets.steps.training.datamodule import Batch
from emotion_assets.steps.training.model import (
    INPUT_SIZE_PX,
    NUM_ORIENTATIONS,
    EmotionNet,
    apply_orientation,
    preprocess,
)
from emotion_assets.steps.training.optim import MuonWithAdamW

ORIENTATION_EPOCHS: Final = 12
"""Enough for 95 % accuracy on real faces; longer runs were not tried (docs/log.md)."""
_SIDES_PX: Final = ((0.5, 32), (0.8, 40))
_DISTILLATION_WEIGHT: Final = 0.7
"""Weight of the teachers' loss; the rest is the labels'."""


@dataclass(frozen=True, slots=True)
class Teacher:
    """A trained network whose calibrated predictions are distilled into another one (Hinton et al. 2015).

    It sees the same augmented views as the student (Beyer et al. 2022, "A good teacher is patient and consistent").
    Where a label is wrong, its soft target is the better one.
    """

    network: EmotionNet
    temperature: float

    def predict(self, views: Tensor) -> Tensor:
        """Return probabilities, float32 (image, emotion), for what `EmotionNet.forward` takes."""
        with torch.no_grad():
            logits: Tensor = self.network(views).float()
        return (logits / self.temperature).softmax(dim=1)


class EmotionModule(pl.LightningModule):
    """A network with its loss, its schedule and its validation scores."""

    def __init__(
        self,
        network: nn.Module,
        config: TrainingConfig,
        teachers: Sequence[Teacher] = (),
        class_weights: Tensor | None = None,
    ) -> None:
        """Train on the labels, whose loss has `class_weights`, float (class,), and on what teachers predict."""
        super().__init__()
        self._class_weights = class_weights
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
        """Return the optimizer; `on_train_batch_start` sets its learning rates."""
        return MuonWithAdamW(
            self.network,
            learning_rate=self.config.learning_rate,
            adam_learning_rate=self.config.adam_learning_rate,
            weight_decay=self.config.weight_decay,
            work_dtype=torch.bfloat16 if "bf16" in str(self.trainer.precision) else torch.float32,
        )

    @property
    def progress(self) -> float:
        """The finished fraction of the run, 0..1, by steps or by time, whichever is larger."""
        progress: float = self.trainer.global_step / max(1, int(self.trainer.estimated_stepping_batches))
        if self.config.max_minutes is not None:
            by_time = (time.monotonic() - self._started) / 60 / self.config.max_minutes
            # All processes must end at the same step, so the first one's clock counts.
            progress = max(progress, self.trainer.strategy.broadcast(by_time))
        return min(1.0, progress)

    def on_fit_start(self) -> None:
        """Move teachers, which Lightning does not know, and augmentation to the device."""
        if self.device.type == "cuda":
            self._generator = torch.Generator(self.device)
        for teacher in self._teachers:
            teacher.network.to(self.device)

    def on_train_start(self) -> None:
        """Start the clock of `max_minutes`, or resume it after an interruption."""
        self._started = time.monotonic() - self._seconds_before
        # A run that used up its time and is resumed for a later stage must not train on.
        if self.config.max_minutes is not None and self._seconds_before >= 60 * self.config.max_minutes:
            self.trainer.should_stop = True

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the learning rates and seed the step.

        Augmentation and dropout depend on seed and step alone, so a resumed run equals an unbroken one.
        """
        del batch, batch_idx
        # Each process has other images and needs other random numbers.
        step = self.trainer.global_step + 1_000_000_007 * self.global_rank
        torch.manual_seed(self.config.seed * 9_999_991 + step)
        self._generator.manual_seed(self.config.seed * 7_368_787 + step)
        progress = self._progress_now = self.progress
        factor = compute_rate_factor(progress, self.config.warmup_fraction)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["peak_lr"] * factor
        if progress >= 1:
            self.trainer.should_stop = True

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one augmented batch: label-smoothed cross-entropy, plus distillation with teachers."""
        del batch_idx
        pixels, class_indices = batch
        side_px = choose_side_px(self._progress_now) if self.config.is_progressive else INPUT_SIZE_PX
        views = self._make_views(pixels, side_px)
        if not self.config.corrects_orientation:
            views = randomize_orientation(views, self._generator, self.config.augmentation)
        views = views.to(self.device).contiguous(memory_format=torch.channels_last)
        logits = self.network(views)
        weights = None if self._class_weights is None else self._class_weights.to(logits.device)
        smoothing = self.config.label_smoothing
        loss = functional.cross_entropy(logits.float(), class_indices, weights, label_smoothing=smoothing)
        if self._teachers:
            targets = torch.stack([teacher.predict(views) for teacher in self._teachers]).mean(dim=0)
            distillation = functional.cross_entropy(logits.float(), targets)
            loss = (1 - _DISTILLATION_WEIGHT) * loss + _DISTILLATION_WEIGHT * distillation
        return self._record_loss(loss)

    def _make_views(self, pixels: Tensor, side_px: int) -> Tensor:
        """Augment a batch on the generator's device: the CPU, or a CUDA GPU if there is one."""
        return augment(pixels.to(self._generator.device), side_px, self._generator, self.config.augmentation)

    def _record_loss(self, loss: Tensor) -> Tensor:
        """Record a step's loss, and stop the run if it diverged."""
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"The loss became {loss.item()} in epoch {self.current_epoch}, step {self.global_step}; no model was "
                f"written. Lower learning_rate (now {self.config.learning_rate})."
            )
        self._losses.append(loss.detach())
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect logits; the scores are computed over the whole split."""
        del batch_idx
        pixels, class_indices = batch
        logits = self.network(preprocess(pixels).contiguous(memory_format=torch.channels_last))
        self._validated.append((logits.float(), class_indices))

    def on_validation_epoch_end(self) -> None:
        """Log loss, accuracy and macro-F1 of the validation split, and add them to `history`."""
        logits = torch.cat([pair[0] for pair in self._validated])
        class_indices = torch.cat([pair[1] for pair in self._validated])
        self._validated.clear()
        scores = {
            "val/loss": functional.cross_entropy(logits, class_indices),
            "val/accuracy": (logits.argmax(dim=1) == class_indices).float().mean(),
            "val/macro_f1": multiclass_f1_score(logits, class_indices, logits.shape[1]),
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
        """Save learning curves and clock."""
        checkpoint["history"] = self.history
        checkpoint["seconds"] = time.monotonic() - self._started

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore learning curves and clock."""
        self.history = list(checkpoint["history"])
        self._seconds_before = float(checkpoint["seconds"])


class OrientationModule(EmotionModule):
    """An `OrientationNet` with its loss; schedule, learning rates and history are the emotion network's."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the cross-entropy of one batch in random orientations, without label smoothing."""
        del batch_idx
        views = self._make_views(batch[0], INPUT_SIZE_PX)
        orientations = torch.randint(NUM_ORIENTATIONS, (len(views),), generator=self._generator, device=views.device)
        logits = self.network(apply_orientation(views, orientations).to(self.device))
        return self._record_loss(functional.cross_entropy(logits.float(), orientations.to(self.device)))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect logits for validation faces, cycling through the orientations."""
        del batch_idx
        views = preprocess(batch[0])
        orientations = torch.arange(len(views), device=views.device) % NUM_ORIENTATIONS
        self._validated.append((self.network(apply_orientation(views, orientations)).float(), orientations))


def choose_side_px(progress: float) -> int:
    """Return the side of the training images at `progress` 0..1 of a progressive run."""
    return next((side_px for until, side_px in _SIDES_PX if progress < until), INPUT_SIZE_PX)


def compute_rate_factor(progress: float, warmup_fraction: float) -> float:
    """Return the factor on the peak learning rate at `progress` 0..1: linear warm-up, then linear decay."""
    if progress < warmup_fraction:
        return max(progress, 1e-3) / warmup_fraction
    return (1 - progress) / (1 - warmup_fraction)
