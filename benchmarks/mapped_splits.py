"""Read an epoch of shuffled batches from memory, and from the mapped file of a split, warm and after it left the cache.

Usage: python -m benchmarks.mapped_splits SCRATCH_DIR [--images 1000000]

A step of `quick` on the same processor says what share of an epoch that is. The random pixels need 4 kB an image.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.redesign import describe_processor
from emotion_assets.core.images import IMAGE_SIZE_PX
from emotion_assets.steps.splits.splits import Split, read_split, write_splits
from emotion_assets.steps.training.config import training_config
from emotion_assets.steps.training.datamodule import EmotionDataModule
from emotion_assets.steps.training.precision import measured_cost


def drop_from_cache(path: Path) -> None:
    """Ask the system to forget the file's pages; Linux does so for pages that are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def epoch_seconds(split: Split) -> float:
    """Return the seconds that all batches of an epoch take, without any step of training."""
    started = time.monotonic()
    for pixels, _ in EmotionDataModule(split, split, training_config("quick")).train_dataloader():
        pixels.float().mean()  # touch every pixel
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scratch_dir", type=Path)
    parser.add_argument("--images", type=int, default=1_000_000)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=options.scratch_dir) as folder:
        splits_dir = Path(folder)
        pixels = rng.integers(0, 256, (options.images, IMAGE_SIZE_PX, IMAGE_SIZE_PX), dtype=np.uint8)
        class_indices = np.arange(options.images) % 5
        in_memory = Split(pixels, class_indices, tuple(f"{index:064x}" for index in range(options.images)))
        write_splits(splits_dir, "drawn", {"train": in_memory})
        cost = measured_cost(training_config("quick"), splits_dir)
        step_seconds = min(cost.milliseconds.values()) / 1000 * options.images
        print(f"{describe_processor()}, {options.images:,} images; an epoch of `quick` takes {step_seconds:.0f} s\n")
        print("| pixels | seconds an epoch | images/s | of the epoch |\n|---|---|---|---|")
        for name in ("in memory", "mapped", "mapped, not in the cache"):
            split = in_memory if name == "in memory" else read_split(splits_dir, "train")
            if "not" in name:
                drop_from_cache(splits_dir / "train" / "pixels.npy")
            seconds = epoch_seconds(split)
            share = 100 * seconds / step_seconds
            print(f"| {name} | {seconds:.1f} | {options.images / seconds:,.0f} | {share:.1f} % |")


if __name__ == "__main__":
    main()
