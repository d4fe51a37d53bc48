"""Compare ingest and epochs with naive loops, on the same files in one run.

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

from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.ingest.catalogue import ingest_images
from emotion_assets.steps.splits.make import make_splits
from emotion_assets.steps.splits.splits import Split, read_split
from emotion_assets.steps.training.augment import augment
from emotion_assets.steps.training.datamodule import ShuffledBatchSampler, build_dataset

NUM_WORKERS = 2
BATCH_SIZE = 128


def cpu_seconds() -> float:
    """CPU time of this process and its finished children."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall and CPU seconds of `work`."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    work()
    return time.perf_counter() - wall, cpu_seconds() - cpu


def decode_naively(path: str) -> np.ndarray:
    """Open an image, convert it to RGB, resize it, and convert it to grayscale."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.BILINEAR).convert("L"))


def decode_bare(path: str) -> np.ndarray:
    """Do the least that turns a JPEG into 64×64: decode at a reduced scale and resize, without checks or hashes."""
    image = Image.open(io.BytesIO(Path(path).read_bytes()))
    image.draft("L", (64, 64))
    return np.asarray(image.convert("L").resize((64, 64), Image.Resampling.BILINEAR))


def in_two_processes(function: Callable[[str], np.ndarray], paths: list[str]) -> None:
    with ProcessPoolExecutor(NUM_WORKERS, multiprocessing.get_context("spawn")) as pool:
        np.stack(list(pool.map(function, paths, chunksize=128)))


def in_this_process(function: Callable[[str], np.ndarray], paths: list[str]) -> None:
    np.stack([function(path) for path in paths])


def ingest_new(raw_dir: Path, scratch: str, num_workers: int = NUM_WORKERS) -> DataPaths:
    """Ingest into a new data root below `scratch`."""
    paths = DataPaths(Path(tempfile.mkdtemp(dir=scratch)))
    paths.raw.symlink_to(raw_dir.resolve())
    ingest_images(paths, num_workers=num_workers)
    return paths


def epoch_from_store(split: Split) -> None:
    """Take one epoch of augmented batches, as training does."""
    batches, generator = build_dataset(split), torch.Generator()
    for positions in ShuffledBatchSampler(len(split.pixels), BATCH_SIZE, seed=0):
        augment(batches[positions][0], 48, generator)


def batches_from_store(split: Split) -> None:
    """Take one epoch of batches before augmentation."""
    batches = build_dataset(split)
    for positions in ShuffledBatchSampler(len(split.pixels), BATCH_SIZE, seed=0):
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
    print(f"{num:,} images, {os.cpu_count()} cores, {options.rounds} rounds")
    with tempfile.TemporaryDirectory() as scratch:
        ingested = ingest_new(options.raw_dir, scratch)
        make_splits(ingested)
        split = read_split(ingested.splits, "train")
        sides: dict[str, tuple[int, Callable[[], object]]] = {
            "decode and resize, one process": (num, lambda: in_this_process(decode_bare, paths)),
            "naive loop, one process": (num, lambda: in_this_process(decode_naively, paths)),
            "ingest, one process": (num, lambda: ingest_new(options.raw_dir, scratch, 1)),
            "decode and resize, two processes": (num, lambda: in_two_processes(decode_bare, paths)),
            "naive loop, two processes": (num, lambda: in_two_processes(decode_naively, paths)),
            "ingest, two processes": (num, lambda: ingest_new(options.raw_dir, scratch)),
            "ingest again, no new files": (num, lambda: ingest_images(ingested, num_workers=NUM_WORKERS)),
            "epoch, decoding every image": (num, lambda: in_this_process(decode_naively, paths)),
            "epoch, batches from the store": (len(split.pixels), lambda: batches_from_store(split)),
            "the same, augmented": (len(split.pixels), lambda: epoch_from_store(split)),
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
        ours = rate(f"ingest, {processes}")
        print(f"\n{processes}: ingest / naive loop {ours / rate(f'naive loop, {processes}'):.2f}")
        print(f"{processes}: ingest / decode and resize {ours / rate(f'decode and resize, {processes}'):.2f}")
    medians = {name: statistics.median(seconds) for name, seconds in walls.items()}
    again = medians["ingest again, no new files"] / medians["ingest, two processes"]
    print(f"\nsecond run / first run, wall time: {again:.3f}")
    ratio = rate("epoch, decoding every image") / rate("epoch, batches from the store")
    print(f"batches from the store / decoding every epoch, CPU time per image: {ratio:.4f}")


if __name__ == "__main__":
    main()
