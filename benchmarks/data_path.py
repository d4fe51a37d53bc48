"""Ingest and epoch delivery: ours beside the obvious ways, on the same files in one run.

Usage: python -m benchmarks.data_path RAW_DIR [--rounds 3]
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from emotion_assets.steps.ingest.catalogue import ingest_images
from emotion_assets.steps.splits.splits import Split, make_splits, read_split
from emotion_assets.steps.training.augment import augment
from emotion_assets.steps.training.config import PRESETS
from emotion_assets.steps.training.module import ShuffledBatchSampler, SplitDataset

NUM_WORKERS = 2
BATCH = 128


def cpu_seconds() -> float:
    """CPU time of this process and its ended children."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall and CPU seconds of `work`."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    work()
    return time.perf_counter() - wall, cpu_seconds() - cpu


def open_like_an_image_folder(path: str) -> np.ndarray:
    """The obvious loop: open, convert to RGB, resize, take the gray of it."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.BILINEAR).convert("L"))


def decode_bare(path: str) -> np.ndarray:
    """The least that turns a JPEG into 64×64: the decoder's own shrinking, gray, resize; no check, no hash."""
    image = Image.open(io.BytesIO(Path(path).read_bytes()))
    image.temporary("L", (64, 64))
    return np.asarray(image.convert("L").resize((64, 64), Image.Resampling.BILINEAR))


def in_two_processes(function: Callable[[str], np.ndarray], paths: list[str]) -> None:
    with ProcessPoolExecutor(NUM_WORKERS, multiprocessing.get_context("spawn")) as pool:
        np.stack(list(pool.map(function, paths, chunksize=128)))


def in_this_process(function: Callable[[str], np.ndarray], paths: list[str]) -> None:
    np.stack([function(path) for path in paths])


def ingest(raw_dir: Path, catalogue_dir: Path, num_workers: int = NUM_WORKERS) -> None:
    ingest_images(raw_dir, catalogue_dir, num_workers=num_workers)


def epoch_from_store(split: Split) -> None:
    """One epoch of augmented batches, as training takes them."""
    batches, generator = SplitDataset(split), torch.Generator()
    for positions in ShuffledBatchSampler(len(split.pixels), BATCH, seed=0):
        augment(batches[positions][0], 48, generator)


def batches_from_store(split: Split) -> None:
    """One epoch of batches, before augmentation."""
    batches = SplitDataset(split)
    for positions in ShuffledBatchSampler(len(split.pixels), BATCH, seed=0):
        batches[positions]


def row(name: str, num: int, walls: list[float], cpus: list[float]) -> str:
    wall, cpu = statistics.median(walls), statistics.median(cpus)
    return f"| {name} | {wall:.2f} | {cpu:.2f} | {num / wall:,.0f} | {num / cpu:,.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("raw_dir", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    paths = sorted(str(path) for path in options.raw_dir.rglob("*.jpg"))
    num = len(paths)
    print(f"{num:,} images, {os.cpu_count()} cores, default width {PRESETS['standard'].width}, {options.rounds} rounds")
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path(scratch) / "kept"
        ingest(options.raw_dir, kept / "catalogue")
        make_splits(kept / "catalogue", kept / "splits")
        split = read_split(kept / "splits", "train")
        sides: dict[str, tuple[int, Callable[[], object]]] = {
            "bare decode and shrink, one process": (num, lambda: in_this_process(decode_bare, paths)),
            "the obvious loop, one process": (num, lambda: in_this_process(open_like_an_image_folder, paths)),
            "our ingest, one process": (num, lambda: ingest(options.raw_dir, Path(tempfile.mkdtemp(dir=scratch)), 1)),
            "bare decode and shrink, two processes": (num, lambda: in_two_processes(decode_bare, paths)),
            "the obvious loop, two processes": (num, lambda: in_two_processes(open_like_an_image_folder, paths)),
            "our ingest, two processes": (num, lambda: ingest(options.raw_dir, Path(tempfile.mkdtemp(dir=scratch)))),
            "our ingest again, nothing new": (num, lambda: ingest(options.raw_dir, kept / "catalogue")),
            "epoch: decode every image": (num, lambda: in_this_process(open_like_an_image_folder, paths)),
            "epoch: batches from the store": (len(split.pixels), lambda: batches_from_store(split)),
            "epoch: the same, augmented": (len(split.pixels), lambda: epoch_from_store(split)),
        }
        walls: dict[str, list[float]] = {name: [] for name in sides}
        cpus: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(options.rounds):
            for name, (_, work) in sides.items():
                wall, cpu = measure(work)
                walls[name].append(wall)
                cpus[name].append(cpu)
    print("\n| side | wall s | CPU s | images / s | images / CPU-s |\n|---|---|---|---|---|")
    for name, (count, _) in sides.items():
        print(row(name, count, walls[name], cpus[name]))

    def rate(name: str) -> float:
        return sides[name][0] / statistics.median(cpus[name])

    for processes in ("one process", "two processes"):
        ours = rate(f"our ingest, {processes}")
        print(f"\n{processes}: ours / obvious loop {ours / rate(f'the obvious loop, {processes}'):.2f}")
        print(f"{processes}: ours / bare decoder {ours / rate(f'bare decode and shrink, {processes}'):.2f}")
    again = statistics.median(walls["our ingest again, nothing new"]) / statistics.median(
        walls["our ingest, two processes"]
    )
    print(f"\nsecond run / first run, wall: {again:.3f}")
    cheaper = rate("epoch: decode every image") / rate("epoch: batches from the store")
    print(f"batches from the store / decode every epoch, CPU an image: {cheaper:.4f}")


if __name__ == "__main__":
    main()
