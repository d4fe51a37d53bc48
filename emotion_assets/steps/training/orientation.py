"""Train the orientation network on the same faces, randomly rotated and inverted."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from emotion_assets.steps.training.datamodule import Batch
from emotion_assets.steps.training.model import INPUT_SIZE_PX, NUM_ORIENTATIONS, apply_orientation, preprocess
from emotion_assets.steps.training.module import EmotionModule

ORIENTATION_EPOCHS: Final = 12
"""Enough for 95 % accuracy on real faces; longer runs were not tried (docs/log.md)."""


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
