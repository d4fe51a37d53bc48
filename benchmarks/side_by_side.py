"""Compare steps on one host with another checkout that has the same functions, such as an earlier commit.

Usage: python -m benchmarks.side_by_side OTHER_CHECKOUT RAW_DIR [--rounds 5]

Ingest of all images, ingest of nothing new, a training epoch and a look of the sensor, in turn, each in a process.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.redesign import describe_processor

PRELUDE: Final = """
import sys, tempfile, time
from pathlib import Path
from emotion_assets.core.classes import read_classes
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.ingest.catalogue import ingest_images
from emotion_assets.steps.ingest.scan import folder_state
try:
    from emotion_assets.steps.splits.make import make_splits
except ImportError:  # the other checkout is from before 28 November 2026
    from emotion_assets.steps.splits.splits import make_splits
from emotion_assets.steps.training.config import training_config
from emotion_assets.steps.training.train import train
paths = DataPaths(Path(sys.argv[1]))
new_paths = DataPaths(Path(tempfile.mkdtemp(dir=paths.root)))
new_paths.raw.symlink_to(paths.raw.resolve())
def measure(work):
    started = time.perf_counter()
    work()
    print(time.perf_counter() - started)
"""
PREPARE: Final = "ingest_images(paths); make_splits(paths)"
STEPS: Final = {
    "ingest": "measure(lambda: ingest_images(new_paths))",
    "nothing new": "measure(lambda: ingest_images(paths))",
    "epoch": 'measure(lambda: train(paths.splits, new_paths.root, training_config("quick", epochs=1)))',
    "sensor": "measure(lambda: folder_state(paths.raw, read_classes(paths.classes)))",
}


def run(checkout: Path, root: Path, code: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(checkout), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", PRELUDE + code, str(root)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other_checkout", type=Path)
    parser.add_argument("raw_dir", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    checkouts = (options.other_checkout.resolve(), Path.cwd())
    with tempfile.TemporaryDirectory() as folder:
        roots = [Path(folder) / "other", Path(folder) / "this"]
        for checkout, root in zip(checkouts, roots, strict=True):
            root.mkdir()
            (root / "raw").symlink_to(options.raw_dir.resolve())
            run(checkout, root, PREPARE)
        print(f"{describe_processor()}; medians of {options.rounds} rounds\n")
        print("| step | other checkout, s | this checkout, s | relative speed |\n|---|---|---|---|")
        for step, code in STEPS.items():
            seconds: tuple[list[float], list[float]] = ([], [])
            for number in range(options.rounds):
                for side in (0, 1) if number % 2 == 0 else (1, 0):
                    seconds[side].append(float(run(checkouts[side], roots[side], code).splitlines()[-1]))
            before, now = map(statistics.median, seconds)
            ratio = statistics.median(a / b for a, b in zip(*seconds, strict=True))
            print(f"| {step} | {before:.2f} | {now:.2f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
