from __future__ import annotations

from pathlib import Path

import torch

from emotion_assets.steps.splits.splits import read_split
from emotion_assets.steps.training.datamodule import EmotionDataModule, ShuffledBatchSampler
from tests.steps.training.helpers import TINY


def test_processes_divide_each_batch() -> None:
    """Together they see the batch that one process would see, and no image twice."""
    whole = list(ShuffledBatchSampler(100, 32, seed=3))
    by_rank = [list(ShuffledBatchSampler(100, 32, seed=3, rank=rank, num_ranks=2)) for rank in (0, 1)]

    for number, batch in enumerate(whole):
        first, second = by_rank[0][number], by_rank[1][number]
        assert sorted(first + second) == sorted(batch)
        assert len(first) == len(second)


def test_order_depends_on_seed_and_epoch() -> None:
    """A resumed epoch has the order of an unbroken one."""
    sampler, same = ShuffledBatchSampler(64, 32, seed=3), ShuffledBatchSampler(64, 32, seed=3)
    first = list(sampler)
    sampler.set_epoch(1)
    same.set_epoch(1)

    assert list(sampler) == list(same)
    assert list(sampler) != first


def test_loaders_give_all_images_with_their_classes(drawn_root: Path) -> None:
    """Validation in order and complete, training in full batches."""
    train, val = (read_split(drawn_root / "splits", name) for name in ("train", "val"))
    data = EmotionDataModule(train, val, TINY)

    pixels, class_indices = (torch.cat(parts) for parts in zip(*data.val_dataloader(), strict=True))
    assert torch.equal(pixels, torch.from_numpy(val.pixels))
    assert torch.equal(class_indices, torch.from_numpy(val.class_indices))
    assert {len(batch[0]) for batch in data.train_dataloader()} == {TINY.batch_size}
