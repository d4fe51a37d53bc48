"""Kill an ingest at random moments, run it again, and compare with an undisturbed one.

Usage: python -m benchmarks.kill_ingest [--kills 50]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from emotion_assets.demo.faces import draw_dataset
from emotion_assets.steps.splits.splits import read_manifest

INGEST = """
import sys
from pathlib import Path
from emotion_assets.steps.ingest import catalogue
from emotion_assets.steps.splits.splits import make_splits
catalogue._BATCH_FILES, catalogue._PARALLEL_FROM_FILES = 8, 40
if __name__ == "__main__":
    root = Path(sys.argv[1])
    catalogue.ingest_images(root / "raw", root / "catalogue", num_workers=2)
    make_splits(root / "catalogue", root / "splits")
"""


def start(root: Path) -> subprocess.Popen[bytes]:
    """Start ingest and split in a session of its own, so that a kill takes its workers too."""
    script = root / "ingest.py"
    script.write_text(INGEST)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, str(script), str(root)], env=environment, start_new_session=True)


def result(root: Path) -> tuple[pd.DataFrame, str, list[str]]:
    """What an ingest leaves: the table, the splits' fingerprint, and files that should not be there."""
    left_over = [str(path) for path in root.rglob("*") if path.name.endswith(".tmp")]
    table = pd.read_parquet(root / "catalogue" / "catalogue.parquet")
    return table, str(read_manifest(root / "splits")["fingerprint"]), left_over


def kill_and_rerun(root: Path, delay_seconds: float) -> None:
    """Ingest, kill after `delay_seconds`, and ingest again to the end."""
    process = start(root)
    time.sleep(delay_seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if start(root).wait() != 0:
        raise AssertionError(f"the run after a kill at {delay_seconds:.2f} s failed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        calm = Path(folder) / "calm"
        draw_dataset(calm, num_per_emotion=60, seed=0)
        started = time.perf_counter()
        assert start(calm).wait() == 0
        seconds = time.perf_counter() - started
        expected, fingerprint, _ = result(calm)
        num_whole = 0
        for number in range(options.kills):
            root = Path(folder) / f"kill{number}"
            shutil.copytree(calm / "raw", root / "raw")
            delay = random.Random(number).uniform(0, seconds)
            kill_and_rerun(root, delay)
            table, own_fingerprint, left_over = result(root)
            is_readable = table.equals(expected) and own_fingerprint == fingerprint
            num_whole += is_readable
            print(
                f"killed at {delay:.2f} of {seconds:.2f} s: {'whole' if is_readable else 'DIFFERENT'} {left_over or ''}"
            )
            shutil.rmtree(root)
    print(f"\n{num_whole} of {options.kills} results equal the undisturbed one")


if __name__ == "__main__":
    main()
