from __future__ import annotations

import sqlite3
import sys
import time
from pathlib import Path

import pytest

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.steps.training.train import train
from tests.steps.training.helpers import TINY, tiny


def test_mlflow_works_without_a_server(drawn_root: Path, tmp_path: Path) -> None:
    """Its database in the run's folder has parameters and metrics."""
    train(drawn_root / "splits", tmp_path, tiny(epochs=1), tracker="mlflow")
    (database,) = tmp_path.rglob("mlflow.db")
    with sqlite3.connect(database) as connection:
        metrics = {row[0] for row in connection.execute("select key from metrics")}
        parameters = {row[0] for row in connection.execute("select key from params")}
    connection.close()

    assert "val/accuracy" in metrics
    assert "learning_rate" in parameters


def test_wandb_works_without_a_network(drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes an offline run, which `wandb sync` can upload later."""
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(drawn_root / "splits", tmp_path, tiny(epochs=1), tracker="wandb")
    (written,) = tmp_path.rglob("offline-run-*/*.wandb")
    # Its own process writes the file, on a busy machine a moment after the run has ended.
    deadline = time.monotonic() + 60
    while b"learning_rate" not in written.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.1)

    assert b"learning_rate" in written.read_bytes()
    assert sys.modules["wandb"].run is None


def test_unavailable_trackers_are_rejected_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong name lists the right ones, a missing package names the command; not even the splits are read."""
    with pytest.raises(UnusableDataError, match="none, wandb, mlflow"):
        train(tmp_path, tmp_path, TINY, tracker="paper")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UnusableDataError, match="pip install"):
        train(tmp_path, tmp_path, TINY, tracker="mlflow")
