"""How the network that recognises poses is trained: on the same faces, turned and made negatives by chance."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from emotion_assets.steps.training.lightning_parts import Batch, EmotionModule
from emotion_assets.steps.training.network import INPUT_SIZE_PX, NUM_POSES, posed, prepare

POSE_EPOCHS: Final = 12
"""On real faces 95 of 100 poses are told after 12; longer was not tried (docs/log.md)."""


class PoseModule(EmotionModule):
    """A `PoseNet` with its loss; schedule, rates and record are those of the emotion's network."""

    num_classes = NUM_POSES

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the cross-entropy of one batch in random poses; without smoothing, because doubt is weighed later."""
        del batch_idx
        views = self._views(batch[0], INPUT_SIZE_PX)
        poses = torch.randint(NUM_POSES, (len(views),), generator=self._generator, device=views.device)
        logits = self.network(posed(views, poses).to(self.device))
        return self._noted(functional.cross_entropy(logits.float(), poses.to(self.device)))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect logits for validation faces in all poses in turn."""
        del batch_idx
        views = prepare(batch[0])
        poses = torch.arange(len(views), device=views.device) % NUM_POSES
        self._validated.append((self.network(posed(views, poses)).float(), poses))
