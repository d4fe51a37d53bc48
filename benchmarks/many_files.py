"""Measure time and memory of ingest and sensors on a million files, hard links to a few drawn faces.

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

import dagster as dg
import numpy as np

from emotion_assets.automation.sensors import drift_sensor, new_images_sensor
from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.layout import DataPaths
from emotion_assets.demo.faces import draw_face
from emotion_assets.resources import PipelineSettings
from emotion_assets.steps.ingest.catalogue import ingest_images

FILES_PER_FOLDER = 1000
FACES_PER_EMOTION = 10  # a file system allows 65,000 links to one file


def make_tree(root: Path, num_files: int) -> None:
    """Create `num_files` hard links to fifty faces."""
    rng = np.random.default_rng(0)
    originals = []
    for emotion in EMOTIONS:
        for number in range(FACES_PER_EMOTION):
            path = root / "originals" / f"{emotion}{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(draw_face(emotion, rng))
            originals.append((emotion, str(path)))
    for number in range(num_files):
        emotion, original = originals[number % len(originals)]
        folder = root / "raw" / emotion / f"{number // len(originals) // FILES_PER_FOLDER:04}"
        if number // len(originals) % FILES_PER_FOLDER == 0:
            folder.mkdir(parents=True, exist_ok=True)
        os.link(original, folder / f"{number}.jpg")


def peak_megabytes() -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def report(name: str, started: float) -> None:
    print(f"| {name} | {time.perf_counter() - started:.1f} | {peak_megabytes():.0f} |", flush=True)


def tick(root: Path) -> None:
    """Evaluate both sensors as Dagster's daemon does, after drift has opened an incident."""
    settings = PipelineSettings(data_dir=root, quiet_seconds=0)
    with dg.instance_for_test() as instance:
        incident = {"state": "prediction_drift", "cause": "darker", "is_incident": True, "alarms_in_a_row": 2}
        instance.report_runless_asset_event(dg.AssetMaterialization("drift_report", metadata=incident))
        for sensor in (new_images_sensor, drift_sensor):
            context = dg.build_sensor_context(instance=instance, resources={"settings": settings})
            started = time.perf_counter()
            result = sensor(context)
            assert isinstance(result, dg.SensorResult)
            report(f"tick of {sensor.name} that requests a run", started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scratch_dir", type=Path)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--stage", choices=["all", "tick", "ingest"], default="all")
    options = parser.parse_args()
    root = options.scratch_dir
    if options.stage == "all":
        started = time.perf_counter()
        make_tree(root, options.files)
        print(f"{options.files:,} files created in {time.perf_counter() - started:.0f} s\n")
        print("| step | wall s | peak MB of the process |\n|---|---|---|", flush=True)
        # Each stage in its own process, so that the peak is its own.
        for stage in ("tick", "ingest", "ingest", "tick"):
            command = [sys.executable, "-m", "benchmarks.many_files", str(root), "--stage", stage]
            subprocess.run(command, check=True)
        return
    if options.stage == "tick":
        tick(root)
    else:
        started = time.perf_counter()
        ingested = ingest_images(DataPaths(root))
        report(f"ingest: {ingested.num_new:,} new, {ingested.num_cached:,} known files", started)


if __name__ == "__main__":
    main()
