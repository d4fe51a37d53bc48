"""The graph on one host of a data root, and services on others."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg

from emotion_assets.assets.evaluation import candidate_is_not_worse, evaluation_report
from emotion_assets.assets.ingest import greyscale_splits, raw_images, splits_share_no_image, splits_share_no_subject
from emotion_assets.assets.packing import emotion_bento
from emotion_assets.assets.training import trained_cnn
from emotion_assets.resources import PipelineSettings
from tests.served import serving

GRAPH = (
    raw_images,
    greyscale_splits,
    splits_share_no_image,
    splits_share_no_subject,
    trained_cnn,
    evaluation_report,
    candidate_is_not_worse,
    emotion_bento,
)
# Not `auto`: of so small a network neither precision is clearly faster, and each host measures for itself.
TRAINING = {"preset": "quick", "epochs": 20, "width": 16, "batch_size": 16, "precision": "32-true"}


def materialize(settings: PipelineSettings, *assets: object, **config: object) -> dg.ExecuteInProcessResult:
    """Materialize the whole graph, or some assets, on a host."""
    selected = assets or GRAPH
    ops: dict[str, object] = {"trained_cnn": {"config": TRAINING | config}} if trained_cnn in selected else {}
    return dg.materialize(selected, resources={"settings": settings}, run_config={"ops": ops})  # type: ignore[arg-type]


@contextlib.contextmanager
def replica(data_root: str, home: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Serve the latest bento from a host of its own; yield address and process, which may be killed."""
    environment = os.environ | {
        "EMOTION_DATA_DIR": data_root,
        "EMOTION_CACHE_DIR": str(home),
        "EMOTION_WORKERS": "1",
        "EMOTION_STORE_IMAGES": "1",
        "PYTHONWARNINGS": "ignore",
    }
    home.mkdir(parents=True)
    with serving(home, environment) as served:
        yield served


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait up to a minute."""
    for _ in range(240):
        if condition():
            return
        time.sleep(0.25)
    raise AssertionError("nothing happened for a minute")


def materialize_with(settings: PipelineSettings, config: dict[str, object]) -> dict[str, object]:
    """Materialize the whole graph with an engine; return fingerprint and scores."""
    training = dict(config["training"])  # type: ignore[call-overload]
    ops = {
        "raw_images": {"config": {"engine": config["engine"]}},
        "trained_cnn": {"config": {**training, "engine": config["engine"]}},
    }
    instance = dg.DagsterInstance.get() if "DAGSTER_HOME" in os.environ else None
    result = dg.materialize(
        GRAPH, resources={"settings": settings}, run_config={"ops": ops}, instance=instance, raise_on_error=False
    )
    metadata = {
        name: result.asset_materializations_for_node(name)[0].metadata
        for name in ("greyscale_splits", "evaluation_report")
    }
    return {
        "fingerprint": metadata["greyscale_splits"]["fingerprint"].value,
        "scores": [metadata["evaluation_report"][name].value for name in ("test/accuracy", "test/macro_f1")],
    }
