"""Training on a Ray cluster; `tests/cluster/test_ray.py` has the whole graph."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.ray_nodes import Nodes

TRAINING = """
import sys
from pathlib import Path
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.training.config import training_config
from emotion_assets.steps.training.run import train_bundle
config = training_config("quick", epochs=1, width=4, batch_size=16, devices=2, precision="32-true")
try:
    train_bundle(DataPaths(Path(sys.argv[1])), config, code_version="x", engine="ray")
except Exception as error:
    print("RAISED", type(error).__name__, error)
"""


def test_an_error_of_a_process_is_raised_here(nodes: Nodes, tmp_path: Path) -> None:
    """As in one process, and not tried again."""
    command = [sys.executable, "-W", "ignore", "-c", TRAINING, str(tmp_path)]
    run = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=300, check=False)

    assert "RAISED UnusableDataError" in run.stdout, run.stdout + run.stderr
    assert "Materialize greyscale_splits first" in run.stdout
