from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.training.tune import TuningResult, tune
from tests.steps.training.helpers import interrupted_at, link_splits

SMALL = {"epochs": 1, "width": 4, "batch_size": 64}


def search(paths: DataPaths, num_trials: int, **changes: object) -> TuningResult:
    return tune(paths, preset="quick", overrides=SMALL | changes, num_trials=num_trials, code_version="x")


def test_an_interrupted_search_continues(drawn_root: Path, tmp_path: Path, log_lines: Callable[[], list[str]]) -> None:
    """Finished trials count, the interrupted one failed, and the summary shows all of them."""
    paths = link_splits(drawn_root, tmp_path)
    search(paths, 1)
    with interrupted_at("Epoch 1"):
        search(paths, 3)
    result = search(paths, 3)

    assert sum(line.startswith("Trial ") for line in log_lines()) == 2
    assert sorted(result.trials["state"]) == ["complete", "complete", "fail"]
    assert not list(tmp_path.rglob("*.ckpt"))
    assert result.best_loss == result.trials["val_loss"].min()
    assert result.trials["learning_rate"].nunique() == 3
    assert set(result.best) == {"learning_rate", "adam_learning_rate", "weight_decay", "dropout", "label_smoothing"}
    summary = result.summary()
    assert summary.values == {"num_trials": 3, "best_val_loss": result.best_loss}
    assert [row["state"] for row in summary.tables["trials"]] == ["complete", "complete", "fail"]
    assert '"preset": "quick"' in summary.texts["best"]
    assert b"<svg" in summary.images["losses"]


def test_another_search_has_its_own_trials(drawn_root: Path, tmp_path: Path) -> None:
    """Losses of another architecture say nothing about the best configuration here."""
    paths = link_splits(drawn_root, tmp_path)
    search(paths, 1)

    assert len(search(paths, 1, width=5).trials) == 1


def test_a_search_without_a_complete_trial_has_no_best(
    drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Diverged trials fail, and the search goes on to the next."""

    def suggest(_: object, name: str, low: float, high: float, **__: object) -> float:
        return 1e30 if "rate" in name else (low + high) / 2

    monkeypatch.setattr("optuna.Trial.suggest_float", suggest)
    result = search(link_splits(drawn_root, tmp_path), 2)

    assert list(result.trials["state"]) == ["fail", "fail"]
    assert result.summary().values == {"num_trials": 2}
