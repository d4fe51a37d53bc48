"""Train one epoch of `quick` alone, beside one and beside two busy processes, with threads that spin and that sleep.

Usage: python -m benchmarks.busy_machine SPLITS_DIR

On a machine of two processors a fair share is half beside two busy processes, and two thirds beside one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
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
POLICIES = {"spin": "active", "sleep": "passive"}


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


def seconds(splits_dir: Path, policy: str) -> float:
    environment = os.environ | {"OMP_WAIT_POLICY": policy}
    command = [sys.executable, "-c", CODE, str(splits_dir)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("splits_dir", type=Path)
    splits_dir = parser.parse_args().splits_dir
    alone: dict[str, float] = {}
    print("| busy processes | threads | seconds | of alone | of spinning threads |\n|---|---|---|---|---|")
    for number in range(3):
        found = {}
        for name, policy in POLICIES.items():
            with busy(number):
                found[name] = seconds(splits_dir, policy)
            alone.setdefault(name, found[name])
            print(
                f"| {number} | {name} | {found[name]:.1f} | {found[name] / alone[name]:.2f} "
                f"| {found[name] / found['spin']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
