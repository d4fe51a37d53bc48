"""The whole graph on two Ray nodes with object storage and PostgreSQL: the same result as on a laptop, also when a node is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from emotion_assets.core.bundle import read_manifest
from emotion_assets.resources import PipelineSettings
from emotion_assets.steps.registry.registry import Registry
from tests.ray_nodes import Nodes

# Enough for the gate: a network that never answers one of the emotions is rejected.
TRAINING = {"preset": "quick", "epochs": 20, "width": 16, "batch_size": 16, "devices": 2, "precision": "32-true"}
GRAPH = """
import json, logging, sys
logging.basicConfig(stream=sys.stdout, level=logging.INFO)
from tests.cluster.helpers import materialize_with
from emotion_assets.resources import PipelineSettings
from emotion_assets.steps.ingest import catalogue
catalogue.BATCH_FILES = catalogue.LOG_EVERY_FILES = 4
print("REPORT", json.dumps(materialize_with(PipelineSettings.load(), json.loads(sys.argv[1]))), flush=True)
"""


def run_graph(settings: PipelineSettings, engine: str, on_line: Callable[[str], None] = print) -> dict[str, Any]:
    """Materialize the whole graph in a process of its own; return what it reports."""
    environment = os.environ | {
        "EMOTION_DATA_DIR": settings.remote_root or str(settings.data_dir),
        "EMOTION_CACHE_DIR": str(settings.cache_dir),
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, "-c", GRAPH, json.dumps({"engine": engine, "training": TRAINING})]
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        lines = []
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            on_line(line)
    assert process.returncode == 0, "".join(lines[-60:])
    (found,) = (line for line in lines if line.startswith("REPORT "))
    report: dict[str, Any] = json.loads(found.removeprefix("REPORT "))
    return report


def weights(settings: PipelineSettings) -> str:
    bundle = settings.paths.models / Registry(settings.paths.models).candidate()
    return str(read_manifest(bundle).files["weights.safetensors"])


@pytest.mark.timeout(1200)  # three minutes on two idle cores
def test_two_nodes_give_what_a_laptop_gives_also_when_one_is_lost(
    local: PipelineSettings,
    hosts: list[PipelineSettings],
    nodes: Nodes,
    instance_home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fingerprint, weights and scores are the same, at an equal number of processes, with Dagster on PostgreSQL.

    One node is killed while images are read and again during training; another one takes its place.
    """
    moments = ["new and 0 known files so far", f"Epoch 3 of {TRAINING['epochs']}"]
    lines: list[str] = []

    def kill(line: str) -> None:
        sys.stdout.write(line)
        lines.append(line)
        if moments and moments[0] in line:
            moments.pop(0)
            nodes.replace_second()

    on_laptop = run_graph(local, "local")
    monkeypatch.setenv("DAGSTER_HOME", str(instance_home))
    on_nodes = run_graph(hosts[0], "ray", kill)
    log = "".join(lines)

    assert not moments
    assert "Resuming an interrupted run after epoch" in log
    assert "Ray nodes took part" in log
    assert on_nodes == on_laptop
    assert weights(hosts[0]) == weights(local)
    with dg.DagsterInstance.from_config(str(instance_home)) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("emotion_bento"))
    assert event is not None
