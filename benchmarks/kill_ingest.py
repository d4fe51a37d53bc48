"""Kill an ingest at random moments, run it again, and compare the result with an undisturbed one.

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

from emotion_assets.core.layout import DataPaths
from emotion_assets.demo.faces import draw_dataset
from emotion_assets.steps.ingest.export import read_catalogue
from emotion_assets.steps.splits.splits import read_manifest

# Small batches and early worker processes, so that kills meet every stage.
INGEST = """
import sys
from pathlib import Path
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.ingest import catalogue, decode_pool
from emotion_assets.steps.splits.make import make_splits
catalogue.BATCH_FILES, decode_pool.PARALLEL_FROM_FILES = 8, 40
paths = DataPaths(Path(sys.argv[1]))
catalogue.ingest_images(paths, num_workers=2)
make_splits(paths)
"""


def start(root: Path) -> subprocess.Popen[bytes]:
    """Start ingest and splits in a session of their own, so that a kill takes the workers too."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", INGEST, str(root)], env=environment, start_new_session=True)


def read_result(root: Path) -> tuple[pd.DataFrame, str, list[str]]:
    """Return the catalogue, the splits' fingerprint, and temporary files that were left behind."""
    paths = DataPaths(root)
    left_over = [str(path) for path in root.rglob("*.tmp")]
    return read_catalogue(paths.catalogue), str(read_manifest(paths.splits)["fingerprint"]), left_over


def kill_and_rerun(root: Path, delay_seconds: float) -> None:
    """Ingest, kill after `delay_seconds`, and ingest again to the end."""
    process = start(root)
    time.sleep(delay_seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if start(root).wait() != 0:
        raise AssertionError(f"The run after a kill at {delay_seconds:.2f} s failed.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        undisturbed = Path(folder) / "undisturbed"
        draw_dataset(DataPaths(undisturbed), num_per_class=60, seed=0)
        started = time.perf_counter()
        assert start(undisturbed).wait() == 0
        seconds = time.perf_counter() - started
        expected, fingerprint, _ = read_result(undisturbed)
        num_equal = 0
        for number in range(options.kills):
            root = Path(folder) / f"kill{number}"
            shutil.copytree(undisturbed / "raw", root / "raw")
            delay = random.Random(number).uniform(0, seconds)
            kill_and_rerun(root, delay)
            table, own_fingerprint, left_over = read_result(root)
            is_equal = table.equals(expected) and own_fingerprint == fingerprint
            num_equal += is_equal
            outcome = "equal" if is_equal else "DIFFERENT"
            print(f"killed at {delay:.2f} of {seconds:.2f} s: {outcome} {left_over or ''}", flush=True)
            shutil.rmtree(root)
    print(f"\n{num_equal} of {options.kills} results equal the undisturbed one.")


if __name__ == "__main__":
    main()
