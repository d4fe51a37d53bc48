"""Jobs that a person starts: look at the models, go back to one, tidy up, audit labels, measure a baseline.

They are jobs and not assets, because nothing depends on them and `Materialize all` should not run them.
"""

from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from emotion_assets.assets.metadata import image, table
from emotion_assets.resources import DataPaths

if TYPE_CHECKING:
    import pandas as pd


class RollbackConfig(dg.Config):
    """Which model to go back to."""

    version: str | None = Field(None, description="An accepted version; by default the one before the champion.")
    reason: str = Field("", description="Recorded in the history.")


@dg.op
def accept_an_earlier_model(context: dg.OpExecutionContext, places: DataPaths, config: RollbackConfig) -> None:
    """Move the pointer back and pack that model; a running service follows within seconds."""
    from emotion_assets.steps.packing.models import roll_back

    version = roll_back(places.models_dir, places.reports_dir, config.version, config.reason)
    context.log.info("%s is accepted now and packed", version)
    context.add_output_metadata({"version": version})


@dg.op
def tabulate_models(context: dg.OpExecutionContext, places: DataPaths) -> None:
    """List every model with its state and test scores."""
    from emotion_assets.steps.packing.models import list_models

    context.add_output_metadata({"models": table(list_models(places.models_dir, places.reports_dir))})


class CleaningConfig(dg.Config):
    """What stays beside the champion."""

    keep_accepted: int = Field(5, ge=0, description="Accepted models to go back to.")
    keep_rejected: int = Field(3, ge=0, description="Rejected candidates to look at.")


@dg.op
def remove_old_models(context: dg.OpExecutionContext, places: DataPaths, config: CleaningConfig) -> None:
    """Remove judged models that are neither among the last accepted nor the last rejected ones."""
    from emotion_assets.steps.packing.models import clean_models

    removed = clean_models(
        places.models_dir,
        places.reports_dir,
        keep_accepted=config.keep_accepted,
        keep_rejected=config.keep_rejected,
        log=context.log.info,
    )
    context.add_output_metadata({"num_removed": len(removed), "removed": ", ".join(removed) or "none"})


class TuningConfig(dg.Config):
    """How far to search, and what all trials have in common."""

    num_trials: int = Field(20, ge=1, description="In all: an interrupted search continues.")
    preset: str = Field("quick", description="What the recipes begin with.")
    epochs: int | None = Field(None, ge=1, description="Passes of each trial; by default the preset's.")
    width: int | None = Field(None, ge=4, description="Channels of the first stage; by default the preset's.")


@dg.op
def search_recipes(context: dg.OpExecutionContext, places: DataPaths, config: TuningConfig) -> None:
    """Try recipes with Optuna on train and val; the best one is shown as a launchpad entry, not used by itself."""
    from emotion_assets.resources import code_version
    from emotion_assets.steps.evaluation.figures import tuning_figure
    from emotion_assets.steps.training.tune import tune

    tuned = tune(
        places.splits_dir,
        places.reports_dir / "tuning",
        preset=config.preset,
        overrides={"epochs": config.epochs, "width": config.width},
        num_trials=config.num_trials,
        code_version=code_version("training"),
        log=context.log.info,
    )
    metadata: dict[str, dg.RawMetadataValue] = {
        "num_trials": len(tuned.trials),
        "trials": table(_rows(tuned.trials)),
    }
    if tuned.best_loss is not None:
        metadata |= {
            "best_val_loss": tuned.best_loss,
            "best": dg.MetadataValue.json(
                {"ops": {"trained_cnn": {"config": {"preset": config.preset, **tuned.best}}}}
            ),
            "losses": image(tuning_figure(tuned.trials), "validation loss of each trial by parameter"),
        }
    context.add_output_metadata(metadata)


def _rows(trials: "pd.DataFrame") -> list[dict[str, str | int | float | bool]]:
    return [{str(name): value for name, value in row.items()} for row in trials.fillna("").to_dict("records")]


class BaselineConfig(dg.Config):
    """How long the baseline CNN is trained."""

    epochs: int = Field(11, ge=1, description="On FER2013 it stops improving after about eleven.")


@dg.op
def train_baseline(context: dg.OpExecutionContext, places: DataPaths, config: BaselineConfig) -> None:
    """Train a network of a student project's size on the same splits; the next report shows it."""
    from emotion_assets.steps.evaluation.baseline import measure_baseline

    result = measure_baseline(places.splits_dir, places.reports_dir, config.epochs, log=context.log.info)
    context.add_output_metadata(
        {
            "test/accuracy": result.scores.accuracy,
            "test/macro_f1": result.scores.macro_f1,
            "cpu_seconds": result.cpu_seconds,
        }
    )


class AuditConfig(dg.Config):
    """How the networks of the audit are trained."""

    preset: str = Field("quick", description="Preset of each fold's training.")
    epochs: int | None = Field(None, ge=1, description="Overrides the preset's epochs.")
    width: int | None = Field(None, ge=4, description="Overrides the preset's width.")
    num_folds: int = Field(3, ge=2, description="Networks to train; the cost grows with it.")
    seed: int = Field(0, ge=0, description="Of folds and training.")


@dg.op
def find_wrong_labels(context: dg.OpExecutionContext, places: DataPaths, config: AuditConfig) -> None:
    """List the training faces whose label is likely wrong, the most suspect first."""
    from emotion_assets.resources import code_version
    from emotion_assets.steps.evaluation.label_audit import GALLERY_NAME, ISSUES_NAME, audit_labels
    from emotion_assets.steps.training.config import training_config

    audit, report_dir = audit_labels(
        places.splits_dir,
        places.catalogue_dir,
        places.reports_dir / "label_audit" / ".work",
        places.reports_dir,
        training_config(config.preset, epochs=config.epochs, width=config.width, seed=config.seed),
        num_folds=config.num_folds,
        code_version=code_version("training"),
        log=context.log.info,
    )
    context.add_output_metadata(
        {
            "num_issues": audit.num_issues,
            "fraction_of_labels": audit.fraction,
            "out_of_fold_accuracy": audit.out_of_fold_accuracy,
            "by_emotion": table([{"emotion": name, "share": fraction} for name, fraction in audit.by_emotion.items()]),
            "most_suspect": image((report_dir / GALLERY_NAME).read_bytes(), "the most suspect labels"),
            "table": dg.MetadataValue.url(places.link(report_dir / ISSUES_NAME)),
            "table_file": dg.MetadataValue.path(report_dir / ISSUES_NAME),
        }
    )


@dg.job(description="Accept an earlier model again; a running service follows within seconds.")
def rollback() -> None:
    """Go back one model, or to the one that the configuration names."""
    accept_an_earlier_model()


@dg.job(description="Every model side by side: state, test scores, data, last reason.")
def list_models() -> None:
    """Look at the models."""
    tabulate_models()


@dg.job(description="Remove old models: the champion, 5 accepted and 3 rejected ones stay.")
def clean_models() -> None:
    """Tidy up."""
    remove_old_models()


@dg.job(description="Train a baseline CNN on the same faces, as a baseline for the reports.")
def measure_baseline() -> None:
    """Measure the baseline."""
    train_baseline()


@dg.job(description="Find training faces whose label is likely wrong, by networks that never saw them.")
def audit_labels() -> None:
    """Audit the labels."""
    find_wrong_labels()


@dg.job(description="Search for a better recipe with Optuna; may be stopped and continues where it was.")
def tune() -> None:
    """Try recipes on train and val."""
    search_recipes()


MODEL_JOBS = [rollback, list_models, clean_models, measure_baseline, audit_labels, tune]
