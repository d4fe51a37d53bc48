"""Compare ingest, a training epoch, a drift check and HTTP throughput with another checkout of this repository.

Usage: python -m benchmarks.redesign OTHER_CHECKOUT RAW_DIR [--rounds 3] [--steps ingest epoch …]

OTHER_CHECKOUT has the code before the redesign, which `OTHER` below calls. Both run with this interpreter, in turn,
each in its own processes and data root; both services stay up while they are loaded in turn. RAW_DIR has one folder of
images for each emotion. Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import pandas as pd
import psutil

from benchmarks.serving import encode_request, load, serve_bento, wait_until_ready
from emotion_assets.core.bundle import REFERENCE_NAME
from emotion_assets.core.layout import CHAMPION_NAME

CONNECTIONS: Final = 8
SECONDS_OF_LOAD: Final = 2
LOADS_PER_ROUND: Final = 5
NUM_LOGGED: Final = 600  # more than a window of the drift check

PRELUDE: Final = """
import shutil, sys, tempfile, time
from pathlib import Path
from emotion_assets.steps.drift.check import check_drift
from emotion_assets.steps.training.config import training_config
from emotion_assets.steps.training.run import train_bundle
from emotion_assets.steps.training.train import train
root = Path(sys.argv[1])
new_root = Path(tempfile.mkdtemp(dir=root))
def measure(work):
    started = time.perf_counter()
    work()
    print(time.perf_counter() - started)
def measure_second(work):
    work()
    shutil.rmtree(root / "reports" / "drift")
    measure(work)
"""
EPOCH: Final = 'measure(lambda: train(root / "splits", new_root, training_config("quick", epochs=1)))'
# The last line of the output of `prepare` is the folder of the bundle, that of the others the seconds.
OTHER: Final = {
    "imports": """
from emotion_assets.steps.data.catalogue import take_stock
from emotion_assets.steps.data.split import make_splits
from emotion_assets.steps.drift.check import DriftPlaces, answering_model
from emotion_assets.steps.evaluation.registry import Registry
from emotion_assets.steps.packing.pack import pack
registry = Registry(root / "models")
places = DriftPlaces(root / "predictions", root / "feedback", root / "unlabelled", root / "reports")
""",
    "prepare": """
take_stock(root / "raw", root / "catalogue")
make_splits(root / "catalogue", root / "splits")
folders = root / "splits", root / "models", root / "work"
bundle_dir = train_bundle(*folders, preset="quick", overrides={"epochs": 1}, code_version="benchmark")
pack(bundle_dir, {})
print(bundle_dir)
""",
    "ingest": 'measure(lambda: take_stock(root / "raw", new_root))',
    "epoch": EPOCH,
    "drift check": "measure_second(lambda: check_drift(answering_model(registry, places.predictions_dir), places))",
}
THIS: Final = {
    "imports": """
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.ingest.catalogue import ingest_images
from emotion_assets.steps.packing.bento import build_bento
from emotion_assets.steps.splits.make import make_splits
paths, new_paths = DataPaths(root), DataPaths(new_root)
new_paths.raw.symlink_to(paths.raw.resolve())
""",
    "prepare": """
ingest_images(paths)
make_splits(paths)
bundle_dir = train_bundle(paths, training_config("quick", epochs=1), code_version="benchmark")
build_bento(bundle_dir, {})
print(bundle_dir)
""",
    "ingest": "measure(lambda: ingest_images(new_paths))",
    "epoch": EPOCH,
    "drift check": "measure_second(lambda: check_drift(paths))",
}
REQUESTS: Final = "requests/s"
STEPS: Final = ("ingest", "epoch", "drift check", REQUESTS)


@dataclass(frozen=True, eq=False)
class Side:
    """A checkout with a data root of its own."""

    checkout: Path
    root: Path
    code: dict[str, str]

    @property
    def environment(self) -> dict[str, str]:
        folders = {"PYTHONPATH": self.checkout, "BENTOML_HOME": self.root / "bentoml", "EMOTION_DATA_DIR": self.root}
        settings = {"PYTHONWARNINGS": "ignore", "BENTOML_DO_NOT_TRACK": "True", "EMOTION_WORKERS": "1"}
        return os.environ | settings | {name: str(folder) for name, folder in folders.items()}

    def run(self, step: str) -> str:
        """Run the code of a step in a process of its own; return its last line."""
        command = [sys.executable, "-c", PRELUDE + self.code["imports"] + self.code[step], str(self.root)]
        done = subprocess.run(command, cwd=self.checkout, env=self.environment, capture_output=True, text=True)  # noqa: PLW1510
        if done.returncode:
            raise SystemExit(f"{step} failed in {self.checkout}:\n{done.stderr[-3000:]}")
        return done.stdout.splitlines()[-1]

    def seconds(self, step: str) -> float:
        return float(self.run(step))

    def prepare(self, raw_dir: Path) -> None:
        """Train and pack a model, accept it, and log predictions of brighter faces than its reference has."""
        self.root.mkdir()
        (self.root / "raw").symlink_to(raw_dir.resolve())
        bundle_dir = Path(self.run("prepare"))
        champion = {"schema_version": 1, "version": bundle_dir.name, "history": []}
        (bundle_dir.parent / CHAMPION_NAME).write_text(json.dumps(champion))
        reference = pd.read_parquet(bundle_dir / REFERENCE_NAME)
        numbers = reference.select_dtypes("number").columns
        drawn = reference.query("brightness >= brightness.median()").sample(NUM_LOGGED, replace=True, random_state=0)
        started = datetime.now(UTC) - timedelta(hours=1)
        records = [
            {
                "time": (started + timedelta(seconds=number)).isoformat(timespec="milliseconds"),
                "prediction_id": f"{number:040x}",
                "model_version": bundle_dir.name,
                "emotion": row["emotion"],
                "probabilities": {name.removeprefix("p_"): row[name] for name in numbers if name.startswith("p_")},
                "features": {name: row[name] for name in numbers if not name.startswith("p_")},
                **dict.fromkeys(("image_sha256", "picture_sha256"), "0" * 64),
            }
            for number, row in enumerate(drawn.to_dict("records"))
        ]
        path = self.root / "predictions" / f"{started:%Y-%m-%d}" / f"{started:%Y%m%dT%H%M%S%f}-benchmark-1.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(record) + "\n" for record in records))


@contextmanager
def serving(side: Side, request: bytes) -> Iterator[Callable[[], float]]:
    """Serve a side's model with one worker; yield a function that loads it and returns its requests per second."""
    process, port = serve_bento(side.environment | {"OMP_NUM_THREADS": "1"}, side.checkout)
    family = psutil.Process(process.pid)

    def measure() -> float:
        measured = load(port, request, CONNECTIONS, SECONDS_OF_LOAD, family)
        if set(measured.statuses) != {200}:
            raise SystemExit(f"The service of {side.checkout} responded with {dict(measured.statuses)}.")
        return measured.rate

    try:
        wait_until_ready(port, request, family)
        measure()
        yield measure
    finally:
        process.terminate()
        process.wait(timeout=60)


def compare(measures: Sequence[Callable[[], float]], rounds: int) -> tuple[float, float, float]:
    """Measure both sides in turn; return their medians, and the median of the rounds' ratios."""
    pairs = []
    for number in range(rounds):
        # The machine may slow down within a round, so the sides take turns in being first.
        order = (0, 1) if number % 2 == 0 else (1, 0)
        pairs.append(tuple(value for _, value in sorted((side, measures[side]()) for side in order)))
    before, now = map(statistics.median, zip(*pairs, strict=True))
    return before, now, statistics.median(after / earlier for earlier, after in pairs)


def describe_processor() -> str:
    text = Path("/proc/cpuinfo").read_text()
    name = re.search(r"model name\s*: (.*)", text)
    bfloat16 = sorted({"avx512_bf16", "amx_bf16"} & set(text.split()))
    return f"{os.cpu_count()} cores, {name[1] if name else 'unknown'}, {', '.join(bfloat16) or 'no bfloat16'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("other_checkout", type=Path)
    parser.add_argument("raw_dir", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    options = parser.parse_args()
    request = encode_request(min(options.raw_dir.rglob("*.jpg")).read_bytes())
    with tempfile.TemporaryDirectory() as folder:
        sides = (
            Side(options.other_checkout.resolve(), Path(folder) / "other", OTHER),
            Side(Path(__file__).parents[1], Path(folder) / "this", THIS),
        )
        for side in sides:
            side.prepare(options.raw_dir)
        print(f"{describe_processor()}; medians of {options.rounds} rounds ({LOADS_PER_ROUND} loads each)\n")
        print("| step | other checkout | this checkout | relative speed |\n|---|---|---|---|", flush=True)
        for step in options.steps:
            if step == REQUESTS:
                with serving(sides[0], request) as other, serving(sides[1], request) as this:
                    before, now, speed = compare((other, this), LOADS_PER_ROUND * options.rounds)
                print(f"| {step} | {before:.0f} | {now:.0f} | {speed:.2f} |", flush=True)
            else:
                before, now, ratio = compare([partial(side.seconds, step) for side in sides], options.rounds)
                print(f"| {step}, s | {before:.2f} | {now:.2f} | {1 / ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
