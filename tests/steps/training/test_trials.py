"""Trials of a search on a Ray cluster; `test_tune.py` has those in one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.ray_nodes import Nodes
from tests.steps.training.helpers import link_splits

SEARCH = """
import json, sys
from pathlib import Path
import optuna
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.training import trials, tune
from emotion_assets.steps.training.config import training_config
paths = DataPaths(Path(sys.argv[1]))
on_ray = trials.RayTrials(paths, "x")
print("AT ONCE", on_ray.num_at_once)

def prune(epoch, loss):
    raise optuna.TrialPruned

# Its node is free again at once, or the search would not end.
try:
    on_ray.run(training_config("quick", epochs=10_000, width=4, batch_size=64, precision="32-true"), prune)
except optuna.TrialPruned:
    print("PRUNED")
common = {"epochs": 3, "width": 4, "batch_size": 64, "precision": "32-true"}
# The third one diverges.
suggest, rates = tune._suggest, iter([0.01, 0.01, 1e30, 0.01])
tune._suggest = lambda trial, base: suggest(trial, base).model_copy(
    update=dict.fromkeys(("learning_rate", "adam_learning_rate"), next(rates))
)
found = tune.tune(paths, preset="quick", overrides=common, num_trials=4, code_version="x", engine="ray")
print("STATES", json.dumps(sorted(found.trials["state"])), found.best_loss is not None)
"""


def test_nodes_share_a_search(nodes: Nodes, drawn_root: Path, tmp_path: Path) -> None:
    """Each node trains a trial; one that is pruned ends, one that diverges fails alone, and no checkpoint is left."""
    paths = link_splits(drawn_root, tmp_path)
    command = [sys.executable, "-W", "ignore", "-c", SEARCH, str(paths.root)]
    run = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=500, check=False)

    assert "AT ONCE 2" in run.stdout, run.stdout + run.stderr
    assert "PRUNED" in run.stdout, run.stdout + run.stderr
    assert 'STATES ["complete", "complete", "complete", "fail"] True' in run.stdout, run.stdout + run.stderr
    assert not list(tmp_path.rglob("*.ckpt"))
