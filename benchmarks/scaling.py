"""Measure reading on one host and on Ray nodes at three sizes, and predict the largest from the two others.

Usage: python -m benchmarks.scaling SCRATCH_DIR [--sizes 5000 10000 20000] [--nodes 1 2]

Reads small drawn faces, each file another content, from a folder: in one process, in the default pool, and on Ray nodes
of one processor each, all on this machine. CPU time is that of all processes, Ray's own included; where the nodes share
the processors of one machine, only it says what an image costs. Memory is the most that one node's processes have of
their own, and the most that the step's have. Needs the extra `cluster`.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.demo.faces import draw_face

INGEST = """
import resource, sys, time
from pathlib import Path
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.ingest import catalogue
catalogue.compare_new_contents = lambda store: None  # measured on its own, in near_duplicates.md
engine, workers = sys.argv[2], int(sys.argv[3]) or None
catalogue.has_table = lambda paths: False
started = time.monotonic()
catalogue.ingest_images(DataPaths(Path(sys.argv[1])), num_workers=workers, engine=engine)
print("SECONDS", time.monotonic() - started)
"""


def make_images(folder: Path, count: int) -> None:
    """Write so many files of 200 drawn faces, which differ by a comment in the JPEG."""
    rng = np.random.default_rng(0)
    faces = [(emotion, draw_face(emotion, rng)) for emotion in EMOTIONS for _ in range(40)]
    for number in range(count):
        emotion, content = faces[number % len(faces)]
        comment = b"\xff\xfe\x00\x06" + number.to_bytes(4, "big")
        path = folder / "raw" / emotion.title() / f"{number // 1000:04}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content[:2] + comment + content[2:])


class Meter:
    """Sums the CPU time of processes and of their children, which may end meanwhile, and finds their peak memory."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._roots = [psutil.Process(pid) for pid in pids]
        self._latest: dict[int, float] = {}
        self.peak_bytes = 0
        self._stopped = threading.Event()
        self._sample()
        self._before = dict(self._latest)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> float:
        """Return the CPU seconds since the start."""
        self._stopped.set()
        self._thread.join()
        return sum(seconds - self._before.get(pid, 0.0) for pid, seconds in self._latest.items())

    def _run(self) -> None:
        while not self._stopped.wait(0.2):
            self._sample()

    def _sample(self) -> None:
        num_bytes = 0
        for root in self._roots:
            with contextlib.suppress(psutil.Error):
                for each in (root, *root.children(recursive=True)):
                    with contextlib.suppress(psutil.Error):
                        times, memory = each.cpu_times(), each.memory_info()
                        self._latest[each.pid] = times.user + times.system
                        num_bytes += memory.rss - memory.shared
        self.peak_bytes = max(self.peak_bytes, num_bytes)


class Measured(NamedTuple):
    """What one ingest took."""

    seconds: float
    cpu_seconds: float
    step_bytes: int
    node_bytes: int


def measure(root: Path, engine: str, workers: int, nodes: list[list[int]]) -> Measured:
    """Ingest into an empty catalogue, and watch the step and the processes of each node."""
    shutil.rmtree(root / "catalogue", ignore_errors=True)
    started = os.times()
    node_meters = [Meter(pids) for pids in nodes]
    command = [sys.executable, "-W", "ignore", "-c", INGEST, str(root), engine, str(workers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        step = Meter([process.pid])
        output, _ = process.communicate()
    step.stop()
    nodes_seconds = sum(meter.stop() for meter in node_meters)
    ended = os.times()
    program = ended.children_user + ended.children_system - started.children_user - started.children_system
    seconds = float(output.partition("SECONDS ")[2].split()[0])
    node_bytes = max((meter.peak_bytes for meter in node_meters), default=0)
    return Measured(seconds, program + nodes_seconds, step.peak_bytes, node_bytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scratch_dir", type=Path)
    parser.add_argument("--sizes", type=int, nargs=3, default=(5000, 10000, 20000))
    parser.add_argument("--nodes", type=int, nargs="*", default=(1, 2))
    options = parser.parse_args()
    # On loopback Ray would wait for other hosts.
    os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": os.getcwd()}
    roots = {size: options.scratch_dir / str(size) for size in options.sizes}
    for size, root in roots.items():
        if not root.exists():
            make_images(root, size)
    print("| way | images | seconds | images/s | CPU ms per image | of one process | MB of the step | MB of a node |")
    print("|---|---|---|---|---|---|---|---|")
    serial: dict[int, float] = {}

    def show(name: str, engine: str, workers: int, nodes: list[list[int]]) -> None:
        found = []
        for size, root in roots.items():
            measured = measure(root, engine, workers, nodes)
            found.append(measured.seconds)
            serial.setdefault(size, measured.cpu_seconds)
            rate, ratio = size / measured.seconds, measured.cpu_seconds / serial[size]
            cells = f"{size:,} | {measured.seconds:.1f} | {rate:,.0f} | {1000 * measured.cpu_seconds / size:.2f}"
            memory = f"{measured.step_bytes / 1e6:.0f} | {measured.node_bytes / 1e6 or math.nan:.0f}"
            print(f"| {name} | {cells} | {ratio:.2f} | {memory} |".replace("nan", ""), flush=True)
        small, medium, large = options.sizes
        predicted = found[1] + (found[1] - found[0]) / (medium - small) * (large - medium)
        cells = f"{large:,} | {predicted:.1f} | {large / predicted:,.0f} | | {predicted / found[2]:.2f} | |"
        print(f"| {name}, predicted, of measured | {cells} |", flush=True)

    show("one process", "local", 1, [])
    show("default", "local", 0, [])
    for number in options.nodes:
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        nodes = [cluster.head_node, *(cluster.add_node(num_cpus=1) for _ in range(number - 1))]
        cluster.wait_for_nodes()
        os.environ["RAY_ADDRESS"] = cluster.address
        time.sleep(3)
        pids = [[each.process.pid for group in node.all_processes.values() for each in group] for node in nodes]
        show(f"{number} Ray node{'s'[: number > 1]}", "ray", 0, pids)
        cluster.shutdown()


if __name__ == "__main__":
    main()
