"""The search for recipes: it counts what it did before, and a tracker gets the curves."""

from __future__ import annotations

import sqlite3
import sys
import time
from pathlib import Path

import dagster as dg
import pytest

from emotion_assets.automation.admin_jobs import tune as tune_job
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.resources import DataPaths
from emotion_assets.steps.training.config import TrainingConfig
from emotion_assets.steps.training.module import EmotionModule
from emotion_assets.steps.training.trackers import build_loggers
from emotion_assets.steps.training.train import train
from emotion_assets.steps.training.tune import tune

TINY = TrainingConfig(epochs=1, width=4, dropout=0.1, batch_size=32, precision="32-true")
SMALL = {"epochs": 1, "width": 4, "batch_size": 64}


def test_a_search_goes_on_where_it_was_stopped(
    drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an interruption the finished trials count, and the next search adds only what is missing."""
    lines: list[str] = []

    def stop(*_: object) -> None:
        if len(lines) == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EmotionModule, "on_validation_epoch_start", stop, raising=False)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            tune(drawn_root / "splits", tmp_path, preset="quick", overrides=SMALL, num_trials=3, log=lines.append)
    tuned = tune(drawn_root / "splits", tmp_path, preset="quick", overrides=SMALL, num_trials=3, log=lines.append)

    assert sorted(tuned.trials["state"]) == ["complete", "complete", "fail"]
    assert not list(tmp_path.rglob("*.ckpt"))
    assert tuned.best_loss == tuned.trials["val_loss"].min()
    assert tuned.trials["learning_rate"].nunique() == 3
    assert set(tuned.best) == {"learning_rate", "adam_learning_rate", "weight_decay", "dropout", "label_smoothing"}


def test_another_search_has_trials_of_its_own(drawn_root: Path, tmp_path: Path) -> None:
    """Losses of other networks, faces or code say nothing about which recipe is best here."""
    first = tune(drawn_root / "splits", tmp_path, preset="quick", overrides=SMALL, num_trials=2)
    second = tune(drawn_root / "splits", tmp_path, preset="quick", overrides=SMALL | {"width": 5}, num_trials=1)

    assert len(first.trials) == 2
    assert len(second.trials) == 1


def test_the_job_shows_table_plot_and_best(drawn_root: Path, tmp_path: Path) -> None:
    """As a person sees it in the UI: the trials, an image, and an entry for the launchpad."""
    (tmp_path / "splits").symlink_to(drawn_root / "splits")
    places = DataPaths(data_dir=str(tmp_path), reports_url="http://localhost:3002")
    config = {"ops": {"search_recipes": {"config": {"num_trials": 1, "epochs": 1, "width": 4}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        result = tune_job.execute_in_process(config, instance=instance, resources={"places": places})
    (output,) = [event for event in result.all_events if event.event_type_value == "STEP_OUTPUT"]
    metadata = output.step_output_data.metadata

    assert "learning_rate" in metadata["trials"].value
    assert "data:image/png" in metadata["losses"].value
    assert metadata["best"].value["ops"]["trained_cnn"]["config"]["preset"] == "quick"


def test_mlflow_gets_the_curves_without_a_server(drawn_root: Path, tmp_path: Path) -> None:
    """Its database in the run's folder holds parameters and metrics."""
    train(drawn_root / "splits", tmp_path, TINY, tracker="mlflow")
    (database,) = tmp_path.rglob("mlflow.db")
    with sqlite3.connect(database) as connection:
        metrics = {row[0] for row in connection.execute("select key from metrics")}
        parameters = {row[0] for row in connection.execute("select key from params")}
    connection.close()

    assert "val/accuracy" in metrics
    assert "learning_rate" in parameters


def test_wandb_gets_the_curves_without_a_network(
    drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes an offline run, which `wandb sync` could send later."""
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(drawn_root / "splits", tmp_path, TINY, tracker="wandb")
    (written,) = tmp_path.rglob("offline-run-*/*.wandb")
    # Its own process writes the file; on a busy machine a moment after the run has ended.
    deadline = time.monotonic() + 60
    while written.stat().st_size < 1000 and time.monotonic() < deadline:
        time.sleep(0.1)

    assert b"learning_rate" in written.read_bytes()
    assert sys.modules["wandb"].run is None


def test_unknown_and_missing_trackers_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong name lists the right ones; a missing package names the command that brings it."""
    with pytest.raises(UnusableDataError, match="none, wandb, mlflow"):
        build_loggers("paper", tmp_path, TINY)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UnusableDataError, match="pip install"):
        # Before anything else is looked at: not even the splits are there.
        train(tmp_path, tmp_path, TINY, tracker="mlflow")
