"""Search for hyper-parameters with Optuna, over the same training step, judged by validation faces alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import lightning.pytorch as pl
import optuna
import pandas as pd
from optuna.trial import TrialState

from emotion_assets.core.files import locked
from emotion_assets.steps.splits.splits import read_manifest
from emotion_assets.steps.training.checkpoints import remove_all_run_files, run_key
from emotion_assets.steps.training.config import training_config
from emotion_assets.steps.training.module import EmotionModule
from emotion_assets.steps.training.train import train

_VALUE: Final = "val/loss"
_WARMUP_EPOCHS: Final = 2


@dataclass(frozen=True, slots=True)
class TuningResult:
    """What a search found."""

    trials: pd.DataFrame
    """One row a trial: `number`, `state`, `val_loss` (smaller is better), and each parameter."""
    best: dict[str, Any]
    """Overrides for the launchpad; empty while no trial ended."""
    best_loss: float | None


def tune(
    splits_dir: Path,
    tuning_dir: Path,
    *,
    preset: str,
    overrides: Mapping[str, Any],
    num_trials: int,
    code_version: str = "",
    log: Callable[[str], None] = lambda _: None,
) -> TuningResult:
    """Try recipes until `num_trials` of them ended, and return all of them.

    Trials are kept in `tuning_dir`: what an interrupted search has done counts in the next one with the same faces,
    preset, overrides and code, the trial that was interrupted as a failed one. Hopeless trials are pruned half-way.

    Args:
        splits_dir: written by `make_splits`; only train and val are read.
        tuning_dir: holds the study and the trials' logs.
        preset: what the recipes begin with.
        overrides: what all of them have in common, e.g. few epochs.
        num_trials: in all, those of an earlier search with it.
        code_version: a search with other code begins again.
        log: gets a line a trial.

    Raises:
        UnusableDataError: there are no splits, or no such preset.
    """
    base = training_config(preset, **overrides)
    name = run_key(str(read_manifest(splits_dir)["fingerprint"]), base, code_version)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # A second search would take the first one's trial for an interrupted one.
    with locked(tuning_dir / ".lock"):
        study = optuna.create_study(
            study_name=name,
            storage=f"sqlite:///{tuning_dir / 'study.db'}",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_warmup_steps=_WARMUP_EPOCHS),
        )
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
        # Seeded by how far the search is: a search that continues would draw its first recipes again.
        study.sampler = optuna.samplers.TPESampler(seed=base.seed + len(study.trials))

        def objective(trial: optuna.Trial) -> float:
            config = training_config(preset, **{**overrides, **_drawn(trial)})
            runs_dir = tuning_dir / "runs"
            try:
                trained = train(splits_dir, runs_dir, config, code_version=code_version, callbacks=[_Pruning(trial)])
            finally:
                remove_all_run_files(runs_dir)  # no later trial has the same recipe
            loss = float(trained.history[-1][_VALUE])
            log(f"Trial {trial.number}: {_VALUE} {loss:.4f} with {trial.params}")
            return loss

        num_left = num_trials - sum(trial.state.is_finished() for trial in study.trials)
        if num_left > 0:
            # A rate that makes the loss infinite is an answer, too.
            study.optimize(objective, n_trials=num_left, catch=(FloatingPointError,))
    has_ended = any(trial.state is TrialState.COMPLETE for trial in study.trials)
    return TuningResult(
        _table(study),
        dict(study.best_params) if has_ended else {},
        float(study.best_value) if has_ended else None,
    )


def _drawn(trial: optuna.Trial) -> dict[str, Any]:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 0.005, 0.06, log=True),
        "adam_learning_rate": trial.suggest_float("adam_learning_rate", 5e-4, 8e-3, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 0.02, 0.4, log=True),
        "dropout": trial.suggest_float("dropout", 0.1, 0.5),
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.2),
    }


def _table(study: optuna.Study) -> pd.DataFrame:
    rows = [
        {"number": trial.number, "state": trial.state.name.lower(), "val_loss": trial.value, **trial.params}
        for trial in study.trials
    ]
    return pd.DataFrame(rows).sort_values("val_loss", na_position="last", ignore_index=True)


class _Pruning(pl.Callback):
    """Ends a trial that is worse than half of the others were at the same epoch."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell the study how far the trial is."""
        assert isinstance(pl_module, EmotionModule)
        if pl_module.history:
            self._trial.report(pl_module.history[-1][_VALUE], trainer.current_epoch)
            if self._trial.should_prune():
                raise optuna.TrialPruned
