"""A catalogue of very many files: time, memory, and the sensor's look, on hard links to a few drawn faces.

Usage: python -m benchmarks.many_files SCRATCH_DIR [--files 1000000]
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from emotion_assets.core.emotions import EMOTIONS
from emotion_assets.steps.data.catalogue import folder_signature, take_stock
from emotion_assets.steps.data.demo_faces import draw_face

FILES_A_FOLDER = 1000
FACES_AN_EMOTION = 10  # a file system allows 65,000 links to one file


def make_tree(root: Path, num_files: int) -> None:
    """Make `num_files` names for fifty faces."""
    rng = np.random.default_rng(0)
    originals = []
    for emotion in EMOTIONS:
        for number in range(FACES_AN_EMOTION):
            path = root / "originals" / f"{emotion}{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(draw_face(emotion, rng))
            originals.append((emotion, str(path)))
    for number in range(num_files):
        emotion, original = originals[number % len(originals)]
        folder = root / "raw" / emotion / f"{number // len(originals) // FILES_A_FOLDER:04}"
        if number // len(originals) % FILES_A_FOLDER == 0:
            folder.mkdir(parents=True, exist_ok=True)
        os.link(original, folder / f"{number}.jpg")


def peak_megabytes() -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def report(name: str, started: float) -> None:
    print(f"| {name} | {time.perf_counter() - started:.1f} | {peak_megabytes():.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scratch_dir", type=Path)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--stage", choices=["all", "look", "stock"], default="all")
    options = parser.parse_args()
    root = options.scratch_dir
    if options.stage == "all":
        started = time.perf_counter()
        make_tree(root, options.files)
        print(f"{options.files:,} files made in {time.perf_counter() - started:.0f} s\n")
        print("| what | wall s | peak MB of the process |\n|---|---|---|", flush=True)
        # Each stage in a process of its own, so that the peaks are theirs.
        for stage in ("look", "stock", "stock", "look"):
            command = [sys.executable, "-m", "benchmarks.many_files", str(root), "--stage", stage]
            subprocess.run(command, check=True)
        return
    started = time.perf_counter()
    if options.stage == "look":
        folder_signature(root / "raw")
        report("the sensor's look", started)
    else:
        stock = take_stock(root / "raw", root / "catalogue")
        report(f"take stock: {stock.num_new:,} new, {stock.num_cached:,} known", started)


if __name__ == "__main__":
    main()
