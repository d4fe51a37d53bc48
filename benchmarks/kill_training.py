"""Kill a training at random moments (-9), start it again each time, and compare its end with an undisturbed one.

Usage: python -m benchmarks.kill_training SPLITS_DIR [--kills 10] [--preset quick] [--epochs 8] [--width 16]

With --preset long its teachers, itself and its network of orientations are trained in turn, and a kill meets any of them.
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

from emotion_assets.core.bundle import MANIFEST_NAME, read_manifest
from emotion_assets.core.files import file_sha256

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
STEPS = re.compile(
    r"^(.*?)(?:Epoch (\d+) of (\d+)|Going on after epoch (\d+) |Starting from scratch)",
    re.MULTILINE,
)
"""What a training's log says of a network: its title, and an epoch that is finished, or after which one it begins."""


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

    def at_work(self) -> tuple[str, int, bool]:
        """Return which network was last at work, its last finished epoch, and whether that was all of them."""
        found = STEPS.findall(self._log.read_text())
        title, epoch, of, resumed_after = found[-1] if found else ("", "", "", "")
        return title, int(epoch or resumed_after or 0), bool(epoch) and epoch == of

    def begun_after(self, title: str) -> int | None:
        """Return after which epoch a network was begun or taken up again; None before it was."""
        found = [step for step in STEPS.findall(self._log.read_text()) if step[0] == title and not step[1]]
        return int(found[-1][3] or 0) if found else None

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def finish(self) -> None:
        if self.process.wait() != 0:
            raise SystemExit(f"The training failed:\n{self._log.read_text()[-2000:]}")


def bundle_of(root: Path) -> tuple[list[str], float]:
    """Return the hashes of all weights and the accuracy on validation faces."""
    # A kill while a bundle was written leaves a folder without a manifest.
    (bundle_dir,) = (path.parent for path in (root / "models").glob(f"*/{MANIFEST_NAME}"))
    hashes = [file_sha256(path) for path in sorted(bundle_dir.glob("*.safetensors"))]
    return hashes, read_manifest(bundle_dir).metrics["val/accuracy"]


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
        print("| kill | after s | epochs that were finished | continues after epoch |\n|---|---|---|---|")
        training, worst = Training(options, disturbed), 0
        for number in range(options.kills):
            # Long enough to get ahead; a start takes some seconds.
            delay = rng.uniform(0, 2 * seconds / options.kills + 10)
            time.sleep(delay)
            if training.process.poll() is not None:
                print(f"| {number + 1} | {delay:.1f} | it was over | |")
                break
            training.kill()
            title, epoch, is_all = training.at_work()
            training = Training(options, disturbed)
            while not is_all and training.process.poll() is None and training.begun_after(title) is None:
                time.sleep(0.1)
            goes_on_after = epoch if is_all else training.begun_after(title) or 0
            lost = epoch - goes_on_after
            worst = max(worst, lost)
            print(f"| {number + 1} | {delay:.1f} | {title or 'Network: '}{epoch} | {goes_on_after} |", flush=True)
        training.finish()
        same = bundle_of(calm) == bundle_of(disturbed)
        print(f"\nMost finished epochs that a kill cost: {worst}. Weights and accuracy as undisturbed: {same}.")
        print(f"Validation accuracy {bundle_of(disturbed)[1]:.4f}.")


if __name__ == "__main__":
    main()
