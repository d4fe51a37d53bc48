"""Training and validation batches from arrays that may be larger than memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Sampler, SequentialSampler, TensorDataset

from emotion_assets.steps.splits.splits import Split
from emotion_assets.steps.training.config import TrainingConfig

Batch = tuple[Tensor, ...]
_EVALUATION_BATCH: int = 512


def build_dataset(split: Split) -> TensorDataset:
    """Return pixels, uint8 (image, 64, 64), and class indices, int64 (image,), to be indexed by whole batches."""
    return TensorDataset(torch.from_numpy(split.pixels), torch.from_numpy(split.class_indices))


class ShuffledBatchSampler(Sampler[list[int]]):
    """Batches of positions in an order that depends on seed and epoch alone; each process takes its part of a batch."""

    def __init__(self, num_images: int, batch_size: int, seed: int, rank: int = 0, num_ranks: int = 1) -> None:
        """Divide the positions below `num_images` into batches of `batch_size`."""
        self._num_images, self._batch_size, self._seed = num_images, batch_size, seed
        self._rank, self._num_ranks = rank, num_ranks
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Use the order of `epoch`; Lightning calls this, also after resuming."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return max(1, self._num_images // self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield full batches; the rest is left out of this epoch."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order = torch.randperm(self._num_images, generator=generator).tolist()
        # A small last batch would give batch normalization the statistics of very few images.
        for number in range(len(self)):
            batch = order[number * self._batch_size : (number + 1) * self._batch_size]
            yield batch[self._rank :: self._num_ranks]


class EmotionDataModule(pl.LightningDataModule):
    """Training and validation batches from two splits."""

    def __init__(self, train: Split, val: Split, config: TrainingConfig) -> None:
        """Take batches from two splits."""
        super().__init__()
        self._train, self._val, self._config = build_dataset(train), build_dataset(val), config

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return shuffled batches."""
        rank, num_ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = ShuffledBatchSampler(len(self._train), self._config.batch_size, self._config.seed, rank, num_ranks)
        return DataLoader(self._train, batch_size=None, sampler=sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation images in order."""
        sampler = BatchSampler(SequentialSampler(self._val), _EVALUATION_BATCH, drop_last=False)
        return DataLoader(self._val, batch_size=None, sampler=sampler)
