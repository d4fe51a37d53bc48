"""Jobs that a person starts: list and clean models, roll back, audit labels, measure the baseline, tune.

They are not assets, because nothing depends on them and *Materialize all* should not run them.
"""

import dagster as dg
from pydantic import Field

from emotion_assets.assets.metadata import DATA_VERSION_TAG, as_metadata, table
from emotion_assets.assets.packing import emotion_bento
from emotion_assets.resources import Engine, Settings, code_version, uses_data
from emotion_assets.steps.packing.models import KEEP_ACCEPTED, KEEP_REJECTED
from emotion_assets.steps.training.config import Preset


class RollbackConfig(dg.Config):
    """Which model to go back to."""

    version: str | None = Field(None, description="An accepted version; by default the one before the champion.")
    reason: str = Field("", description="Recorded in the history.")


@dg.op(name="accept_an_earlier_model")
@uses_data("reports/evaluation", writes=("models",))
def _roll_back(context: dg.OpExecutionContext, settings: Settings, config: RollbackConfig) -> None:
    """Accept an earlier model again and pack it; a running service follows within seconds."""
    from emotion_assets.steps.packing.models import roll_back

    version = roll_back(settings.paths, config.version, config.reason)
    context.add_output_metadata({"version": version})
    # So that the lineage shows which model the bento has now.
    context.log_event(
        dg.AssetMaterialization(emotion_bento.key, metadata={"version": version}, tags={DATA_VERSION_TAG: version})
    )


@dg.op(name="tabulate_models")
@uses_data("models", "reports/evaluation")
def _list_models(context: dg.OpExecutionContext, settings: Settings) -> None:
    """List every model with its state, test scores, data and the reasons of its decision."""
    from emotion_assets.steps.registry.registry import model_rows

    context.add_output_metadata({"models": table(model_rows(settings.paths))})


class CleaningConfig(dg.Config):
    """What is kept besides the champion."""

    keep_accepted: int = Field(KEEP_ACCEPTED, ge=0, description="Accepted models to go back to.")
    keep_rejected: int = Field(KEEP_REJECTED, ge=0, description="Rejected candidates to look at.")


@dg.op(name="remove_old_models")
@uses_data(writes=("models", "reports/evaluation"))
def _clean_models(context: dg.OpExecutionContext, settings: Settings, config: CleaningConfig) -> None:
    """Remove old models; the champion, the newest, and by default 5 accepted and 3 rejected ones are kept."""
    from emotion_assets.steps.packing.models import clean_models

    removed = clean_models(settings.paths, keep_accepted=config.keep_accepted, keep_rejected=config.keep_rejected)
    context.add_output_metadata({"num_removed": len(removed), "removed": ", ".join(removed) or "none"})


class TuningConfig(dg.Config):
    """The size of the search, and what all trials have in common."""

    num_trials: int = Field(20, ge=1, description="Total; an interrupted search resumes.")
    preset: Preset = Field(Preset.quick, description="The preset that the trials vary.")
    epochs: int | None = Field(None, ge=1, description="Epochs of each trial; by default the preset's.")
    width: int | None = Field(None, ge=4, description="Channels of the first stage; by default the preset's.")
    engine: Engine = Field(Engine.local, description="local, or ray: a trial for each GPU or node of a cluster.")


@dg.op(name="tune_hyperparameters")
@uses_data("splits", writes=("reports/tuning",))
def _tune(context: dg.OpExecutionContext, settings: Settings, config: TuningConfig) -> None:
    """Search for better hyperparameters with Optuna; an interrupted search continues, the best ones are shown."""
    from emotion_assets.steps.training.tune import tune

    result = tune(
        settings.paths,
        preset=config.preset,
        overrides={"epochs": config.epochs, "width": config.width},
        num_trials=config.num_trials,
        code_version=code_version("reference", "training"),
        engine=config.engine,
    )
    context.add_output_metadata(as_metadata(result.summary(), settings))


class BaselineConfig(dg.Config):
    """How long the baseline CNN is trained."""

    epochs: int = Field(11, ge=1, description="On FER2013 it stops improving after about eleven.")


@dg.op(name="train_baseline")
@uses_data("splits", writes=("reports/evaluation",))
def _measure_baseline(context: dg.OpExecutionContext, settings: Settings, config: BaselineConfig) -> None:
    """Train a small CNN on the same splits, as a baseline for the next reports."""
    from emotion_assets.steps.evaluation.baseline import measure_baseline

    result = measure_baseline(settings.paths, config.epochs)
    context.add_output_metadata(as_metadata(result.summary(), settings))


class AuditConfig(dg.Config):
    """How the networks of the audit are trained."""

    preset: Preset = Field(Preset.quick, description="Preset of each fold's training.")
    epochs: int | None = Field(None, ge=1, description="Overrides the preset's epochs.")
    width: int | None = Field(None, ge=4, description="Overrides the preset's width.")
    num_folds: int = Field(3, ge=2, description="Networks to train; the cost grows with it.")
    seed: int = Field(0, ge=0, description="Of folds and training.")


@dg.op(name="find_label_issues")
@uses_data("catalogue", "splits", writes=("reports/label_audit",))
def _audit_labels(context: dg.OpExecutionContext, settings: Settings, config: AuditConfig) -> None:
    """List the training images whose label is likely wrong, judged by out-of-fold predictions, worst first."""
    from emotion_assets.steps.evaluation.label_audit import audit_labels
    from emotion_assets.steps.training.config import training_config

    audit = audit_labels(
        settings.paths,
        training_config(config.preset, epochs=config.epochs, width=config.width, seed=config.seed),
        num_folds=config.num_folds,
        code_version=code_version("reference", "training"),
    )
    context.add_output_metadata(as_metadata(audit.summary(), settings))


def _job(name: str, op: dg.OpDefinition) -> dg.JobDefinition:
    return dg.GraphDefinition(name=name, node_defs=[op]).to_job(description=op.description)


JOBS = [
    _job("rollback", _roll_back),
    _job("list_models", _list_models),
    _job("clean_models", _clean_models),
    _job("measure_baseline", _measure_baseline),
    _job("audit_labels", _audit_labels),
    _job("tune", _tune),
]
