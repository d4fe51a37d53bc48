"""How the network that recognizes orientations is trained: on the same faces, turned and made negatives by chance."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from emotion_assets.steps.training.model import INPUT_SIZE_PX, NUM_ORIENTATIONS, apply_orientation, prepare
from emotion_assets.steps.training.module import Batch, EmotionModule

ORIENTATION_EPOCHS: Final = 12
"""On real faces 95 of 100 orientations are told after 12; longer was not tried (docs/log.md)."""


class OrientationModule(EmotionModule):
    """A `OrientationNet` with its loss; schedule, rates and record are those of the emotion's network."""

    num_classes = NUM_ORIENTATIONS

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the cross-entropy of one batch in random orientations; without smoothing, because doubt is weighed later."""
        del batch_idx
        views = self._views(batch[0], INPUT_SIZE_PX)
        orientations = torch.randint(NUM_ORIENTATIONS, (len(views),), generator=self._generator, device=views.device)
        logits = self.network(apply_orientation(views, orientations).to(self.device))
        return self._record_loss(functional.cross_entropy(logits.float(), orientations.to(self.device)))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect logits for validation faces in all orientations in turn."""
        del batch_idx
        views = prepare(batch[0])
        orientations = torch.arange(len(views), device=views.device) % NUM_ORIENTATIONS
        self._validated.append((self.network(apply_orientation(views, orientations)).float(), orientations))
