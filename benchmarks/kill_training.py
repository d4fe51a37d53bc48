"""Kill a training at random moments (-9), start it again each time, and compare its end with an undisturbed one.

Usage: python -m benchmarks.kill_training SPLITS_DIR [--kills 10] [--preset quick] [--epochs 8] [--width 16]

With --preset long three networks are trained one after the other, and a kill meets any of them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from emotion_assets.core.bundle import MANIFEST_NAME, WEIGHTS_NAME, read_manifest
from emotion_assets.core.files import sha256_of

TRAINING = """
import sys
from pathlib import Path
from emotion_assets.steps.training.run import train_bundle
root = Path(sys.argv[2])
train_bundle(
    Path(sys.argv[1]), root / "models", root / "work", preset=sys.argv[5], code_version="killed",
    overrides={"epochs": int(sys.argv[3]), "width": int(sys.argv[4])}, log=lambda line: print(line, flush=True),
)
"""
FINISHED = re.compile(r"^(.*)Epoch (\d+) of (\d+)", re.MULTILINE)
BEGUN = re.compile(r"^(.*)(?:Going on after epoch (\d+) |Starting afresh)", re.MULTILINE)


class Training:
    """A training in a process group of its own, with a log that outlives it."""

    def __init__(self, options: argparse.Namespace, root: Path) -> None:
        self._log = root / f"{time.time_ns()}.log"
        command = [sys.executable, "-c", TRAINING, options.splits_dir, root, str(options.epochs)]
        command += [str(options.width), options.preset]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def begun(self) -> tuple[str, int] | None:
        """Return which network it began with and after which of its epochs; None before it says so."""
        found = BEGUN.search(self._log.read_text())
        return (found[1], int(found[2] or 0)) if found else None

    def finished(self) -> tuple[str, int, bool]:
        """Return the network that was last at work, its last finished epoch, and whether that was all of them."""
        found = FINISHED.findall(self._log.read_text())
        if found:
            title, epoch, of = found[-1]
            return title, int(epoch), epoch == of
        return *(self.begun() or ("", 0)), False

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def finish(self) -> None:
        if self.process.wait() != 0:
            raise SystemExit(f"The training failed:\n{self._log.read_text()[-2000:]}")


def bundle_of(root: Path) -> tuple[str, float]:
    """Return the hash of the weights and the accuracy on validation faces."""
    # A kill while a bundle was written leaves a folder without a manifest.
    (bundle_dir,) = (path.parent for path in (root / "models").glob(f"*/{MANIFEST_NAME}"))
    return sha256_of(bundle_dir / WEIGHTS_NAME), read_manifest(bundle_dir).metrics["val/accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("splits_dir", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        calm, disturbed = Path(folder) / "calm", Path(folder) / "disturbed"
        calm.mkdir()
        disturbed.mkdir()
        started = time.monotonic()
        Training(options, calm).finish()
        seconds = time.monotonic() - started
        print(f"seed {options.seed}; undisturbed: {seconds:.0f} s\n")
        print("| kill | after s | epochs that were finished | goes on after epoch |\n|---|---|---|---|")
        training, worst = Training(options, disturbed), 0
        for number in range(options.kills):
            # Long enough to get ahead; a start takes some seconds.
            delay = rng.uniform(0, 2 * seconds / options.kills + 10)
            time.sleep(delay)
            if training.process.poll() is not None:
                print(f"| {number + 1} | {delay:.1f} | it was over | |")
                break
            training.kill()
            title, epoch, is_all = training.finished()
            training = Training(options, disturbed)
            while training.process.poll() is None and not training.begun():
                time.sleep(0.1)
            next_title, begun_after = training.begun() or ("", 0)
            lost = epoch - begun_after if next_title == title else 0 if is_all else epoch
            worst = max(worst, lost)
            print(f"| {number + 1} | {delay:.1f} | {title}{epoch} | {next_title}{begun_after} |", flush=True)
        training.finish()
        same = bundle_of(calm) == bundle_of(disturbed)
        print(f"\nMost finished epochs that a kill cost: {worst}. Weights and accuracy as undisturbed: {same}.")
        print(f"Validation accuracy {bundle_of(disturbed)[1]:.4f}.")


if __name__ == "__main__":
    main()
