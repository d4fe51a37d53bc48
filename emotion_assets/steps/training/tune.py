"""Search for hyperparameters with Optuna, with the same training step, on the train and val splits alone."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import optuna
import pandas as pd
from optuna.trial import TrialState

from emotion_assets.core.files import locked
from emotion_assets.core.layout import DataPaths
from emotion_assets.core.summary import Row, Summary
from emotion_assets.steps.splits.splits import read_manifest
from emotion_assets.steps.training.checkpoints import run_key
from emotion_assets.steps.training.config import TrainingConfig, training_config
from emotion_assets.steps.training.figures import tuning_figure
from emotion_assets.steps.training.trials import LOSS, LocalTrials, RayTrials

_logger = logging.getLogger(__name__)

_WARMUP_EPOCHS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningResult:
    """The trials of a search, and the best one."""

    preset: str
    trials: pd.DataFrame
    """One row per trial, the best first: `number`, `state`, `val_loss`, and each parameter."""
    best: dict[str, Any]
    """Overrides of the preset; empty while no trial is complete."""
    best_loss: float | None

    def summary(self) -> Summary:
        """Summarize the search: trials, losses by parameter, and the best overrides as a launchpad entry."""
        rows: list[Row] = [
            {str(name): value for name, value in row.items()}
            for row in self.trials.astype(object).fillna("").to_dict("records")
        ]
        if self.best_loss is None:
            return Summary(values={"num_trials": len(rows)}, tables={"trials": rows})
        entry = {"ops": {"trained_cnn": {"config": {"preset": self.preset, **self.best}}}}
        return Summary(
            values={"num_trials": len(rows), "best_val_loss": self.best_loss},
            tables={"trials": rows},
            texts={"best": f"```json\n{json.dumps(entry, indent=2)}\n```"},
            images={"losses": tuning_figure(self.trials)},
        )


def tune(
    paths: DataPaths,
    *,
    preset: str,
    overrides: Mapping[str, Any],
    num_trials: int,
    code_version: str,
    engine: str = "local",
) -> TuningResult:
    """Search around `preset` with `overrides` until `num_trials` trials are finished, and return all of them.

    Trials are stored below `paths.reports`. Those of an interrupted search with the same data, preset, overrides and
    code count; the interrupted trial counts as failed. Unpromising trials are pruned. The engine `ray` runs trials in
    parallel on the nodes of a cluster.

    Raises:
        UnusableDataError: there are no splits, no such preset, or no cluster.
    """
    base = training_config(preset, **overrides)
    name = run_key(str(read_manifest(paths.splits)["fingerprint"]), base, code_version)
    tuning_dir = paths.reports / "tuning"
    trials = RayTrials(paths, code_version) if engine == "ray" else LocalTrials(paths, code_version)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # A second search would take the first one's running trial for an interrupted one.
    with locked(tuning_dir / ".lock"):
        study = optuna.create_study(
            study_name=name,
            storage=f"sqlite:///{tuning_dir / 'study.db'}",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_warmup_steps=_WARMUP_EPOCHS),
        )
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
        # A constant seed would repeat the first trials when a search continues.
        seed, is_parallel = base.seed + len(study.trials), trials.num_at_once > 1
        study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=is_parallel)

        def objective(trial: optuna.Trial) -> float:
            def report(epoch: int, loss: float) -> None:
                trial.report(loss, epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned

            loss = trials.run(_suggest(trial, base), report)
            _logger.info("Trial %d: %s %.4f with %s", trial.number, LOSS, loss, trial.params)
            return loss

        num_left = num_trials - sum(trial.state.is_finished() for trial in study.trials)
        if num_left > 0:
            # A diverged trial fails; the search continues.
            num_jobs = min(trials.num_at_once, num_left)
            study.optimize(objective, n_trials=num_left, n_jobs=num_jobs, catch=(FloatingPointError,))
    is_complete = any(trial.state is TrialState.COMPLETE for trial in study.trials)
    return TuningResult(
        preset=preset,
        trials=_tabulate(study),
        best=dict(study.best_params) if is_complete else {},
        best_loss=float(study.best_value) if is_complete else None,
    )


def _suggest(trial: optuna.Trial, base: TrainingConfig) -> TrainingConfig:
    return base.model_copy(
        update={
            "learning_rate": trial.suggest_float("learning_rate", 0.005, 0.06, log=True),
            "adam_learning_rate": trial.suggest_float("adam_learning_rate", 5e-4, 8e-3, log=True),
            "weight_decay": trial.suggest_float("weight_decay", 0.02, 0.4, log=True),
            "dropout": trial.suggest_float("dropout", 0.1, 0.5),
            "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.2),
        }
    )


def _tabulate(study: optuna.Study) -> pd.DataFrame:
    rows = [
        {"number": trial.number, "state": trial.state.name.lower(), "val_loss": trial.value, **trial.params}
        for trial in study.trials
    ]
    return pd.DataFrame(rows).sort_values("val_loss", na_position="last", ignore_index=True)
