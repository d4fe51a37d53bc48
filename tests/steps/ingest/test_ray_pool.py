"""Images are read on the nodes of a Ray cluster."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.ingest.catalogue import ingest_images
from emotion_assets.steps.ingest.ray_pool import read_on_node
from tests.ray_nodes import Nodes

# In a process of its own: Ray changes signal handlers, warnings and threads of its driver.
INGEST = """
import json, logging, sys
logging.basicConfig(stream=sys.stdout, level=logging.INFO)
from pathlib import Path
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.ingest import catalogue
from emotion_assets.steps.ingest.ray_cluster import connect
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
catalogue.BATCH_FILES = 8
ray = connect()
# A worker on each node first: a slow start of the second one would leave all files to the first one.
where = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in ray.nodes() if node["Alive"]]
ray.get([ray.remote(lambda: None).options(num_cpus=1, scheduling_strategy=node).remote() for node in where])
root = Path(sys.argv[1])
report = catalogue.ingest_images(DataPaths(root), engine="ray")
print("REPORT", json.dumps([report.fingerprint, report.num_new, report.num_decoded]))
"""


def ingest(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", INGEST, str(root)]
    return subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=300, check=False)


def add_large_images(folder: Path) -> None:
    """Add images that take seconds together, so that both nodes have something to do."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (60, 60), dtype=np.uint8)
    Image.fromarray(noise).resize((2400, 2400), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    start, rest = buffer.getvalue()[:2], buffer.getvalue()[2:]
    for number in range(120):
        comment = b"\xff\xfe" + (4).to_bytes(2, "big") + number.to_bytes(2, "big")
        (folder / f"large {number}.jpg").write_bytes(start + comment + rest)


def test_nodes_read_what_one_process_reads(nodes: Nodes, drawn_root: Path, tmp_path: Path) -> None:
    """Both take part, and the catalogue is the same; a second run reads nothing."""
    for name in ("local", "ray"):
        shutil.copytree(drawn_root / "raw", tmp_path / name / "raw")
        add_large_images(tmp_path / name / "raw" / "Happy")
    local = ingest_images(DataPaths(tmp_path / "local"), num_workers=1)

    first, second = ingest(tmp_path / "ray"), ingest(tmp_path / "ray")

    assert first.returncode == 0, first.stdout + first.stderr
    assert "2 Ray nodes took part" in first.stdout
    reports = [json.loads(run.stdout.partition("REPORT ")[2].partition("\n")[0]) for run in (first, second)]
    assert reports == [[local.fingerprint, local.num_new, local.num_decoded], [local.fingerprint, 0, 0]]


def test_a_folder_that_only_one_host_has_is_an_error(tmp_path: Path) -> None:
    """On the other nodes every file would seem to be gone."""
    with pytest.raises(UnusableDataError, match="Mount it there"):
        read_on_node(str(tmp_path / "elsewhere"), ())
