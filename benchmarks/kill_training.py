"""Kill a training at random moments (-9), restart it each time, and compare the result with an undisturbed one.

Usage: python -m benchmarks.kill_training SPLITS_DIR [--kills 10] [--preset quick] [--epochs 8] [--width 16]

With --preset long, teachers, network and orientation network are trained in turn, and a kill meets any of them.
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

from emotion_assets.core.bundle import complete_versions, read_manifest
from emotion_assets.core.files import file_sha256
from emotion_assets.core.layout import DataPaths

TRAINING = """
import logging, sys
from pathlib import Path
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.training.config import training_config
from emotion_assets.steps.training.run import train_bundle
logging.basicConfig(format="%(message)s", stream=sys.stdout)
logging.getLogger("emotion_assets").setLevel(logging.INFO)
config = training_config(sys.argv[2], epochs=int(sys.argv[3]), width=int(sys.argv[4]))
train_bundle(DataPaths(Path(sys.argv[1])), config, code_version="killed")
"""
STEPS = re.compile(
    r"^(.*?)(?:Epoch (\d+) of (\d+)|Resuming an interrupted run after epoch (\d+)|Starting on )",
    re.MULTILINE,
)
"""Lines of the log: the title of a network, and an epoch that it completed or after which it starts."""


class Training:
    """A training in a process group of its own, with a log that outlives it."""

    def __init__(self, options: argparse.Namespace, root: Path) -> None:
        self._log = root / f"{time.time_ns()}.log"
        command = [sys.executable, "-c", TRAINING, str(root), options.preset, str(options.epochs), str(options.width)]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def position(self) -> tuple[str, int, bool]:
        """Return the network that was trained last, its last completed epoch, and whether that was its last one."""
        found = STEPS.findall(self._log.read_text())
        title, epoch, num_epochs, resumed_after = found[-1] if found else ("", "", "", "")
        return title, int(epoch or resumed_after or 0), bool(epoch) and epoch == num_epochs

    def started_after(self, title: str) -> int | None:
        """Return the epoch after which a network was started or resumed; None if it was not yet."""
        found = [step for step in STEPS.findall(self._log.read_text()) if step[0] == title and not step[1]]
        return int(found[-1][3] or 0) if found else None

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def finish(self) -> None:
        if self.process.wait() != 0:
            raise SystemExit(f"The training failed:\n{self._log.read_text()[-2000:]}")


def read_result(root: Path) -> tuple[list[str], float]:
    """Return the hashes of all weights and the validation accuracy."""
    models_dir = DataPaths(root).models
    # A kill during the export leaves a folder without a manifest.
    (version,) = complete_versions(models_dir)
    bundle_dir = models_dir / version
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
        undisturbed, disturbed = Path(folder) / "undisturbed", Path(folder) / "disturbed"
        for root in (undisturbed, disturbed):
            root.mkdir()
            DataPaths(root).splits.symlink_to(options.splits_dir.resolve())
        started = time.monotonic()
        Training(options, undisturbed).finish()
        seconds = time.monotonic() - started
        print(f"seed {options.seed}; undisturbed run: {seconds:.0f} s\n")
        print("| kill | after s | last completed epoch | resumed after epoch |\n|---|---|---|---|")
        training, worst = Training(options, disturbed), 0
        for number in range(options.kills):
            # Long enough for progress; a start takes some seconds.
            delay = rng.uniform(0, 2 * seconds / options.kills + 10)
            time.sleep(delay)
            if training.process.poll() is not None:
                print(f"| {number + 1} | {delay:.1f} | it had ended | |")
                break
            training.kill()
            title, epoch, is_last = training.position()
            training = Training(options, disturbed)
            while not is_last and training.process.poll() is None and training.started_after(title) is None:
                time.sleep(0.1)
            resumed_after = epoch if is_last else training.started_after(title) or 0
            worst = max(worst, epoch - resumed_after)
            print(f"| {number + 1} | {delay:.1f} | {title or 'Network: '}{epoch} | {resumed_after} |", flush=True)
        training.finish()
        is_equal = read_result(undisturbed) == read_result(disturbed)
        print(
            f"\nMost completed epochs lost by a kill: {worst}. Weights and accuracy equal the undisturbed: {is_equal}."
        )
        print(f"Validation accuracy {read_result(disturbed)[1]:.4f}.")


if __name__ == "__main__":
    main()
