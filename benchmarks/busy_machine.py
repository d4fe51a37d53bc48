"""Train one epoch of `quick` alone, beside one and beside two busy processes, with threads that spin, sleep, or both.

Usage: python -m benchmarks.busy_machine SPLITS_DIR [--repeats 3]

On a machine of two processors a fair share is half beside two busy processes, and two thirds beside one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CODE = """
import sys, tempfile, time
from pathlib import Path
from emotion_assets.steps.training.config import training_config
from emotion_assets.steps.training.train import train
with tempfile.TemporaryDirectory() as folder:
    started = time.monotonic()
    train(Path(sys.argv[1]), Path(folder), training_config("quick", epochs=1))
    print(time.monotonic() - started)
"""
POLICIES = {"spin": {"OMP_WAIT_POLICY": "active"}, "sleep": {"OMP_WAIT_POLICY": "passive"}, "default": {}}


@contextlib.contextmanager
def busy(number: int) -> Iterator[None]:
    """Keep so many processors busy until the block ends."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def seconds(splits_dir: Path, policy: dict[str, str]) -> float:
    environment = os.environ | policy
    command = [sys.executable, "-c", CODE, str(splits_dir)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("splits_dir", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    alone: dict[str, float] = {}
    print("| busy processes | threads | seconds | of alone | of spinning threads alone |\n|---|---|---|---|---|")
    for number in range(3):
        found: dict[str, list[float]] = {name: [] for name in POLICIES}
        for _ in range(options.repeats):
            for name, policy in POLICIES.items():
                if number == 0 or name != "spin":
                    with busy(number):
                        found[name].append(seconds(options.splits_dir, policy))
        for name, each in found.items():
            if each:
                median = statistics.median(each)
                alone.setdefault(name, median)
                ratios = f"{median / alone[name]:.2f} | {median / alone['spin']:.2f}"
                print(f"| {number} | {name} | {', '.join(f'{one:.1f}' for one in each)} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
