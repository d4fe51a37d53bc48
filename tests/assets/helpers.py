"""Materialize assets against a data root whose models are trained in seconds."""

from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg

from emotion_assets.assets.evaluation import candidate_is_not_worse, evaluation_report
from emotion_assets.assets.packing import emotion_bento
from emotion_assets.core.layout import DataPaths
from emotion_assets.resources import PipelineSettings
from emotion_assets.steps.registry.registry import Registry
from emotion_assets.steps.training.config import training_config
from emotion_assets.steps.training.run import train_bundle
from tests.bundles import change_manifest


def fit(splits_dir: Path, root: Path, *, epochs: int) -> Path:
    """Train a small network on these splits; return its bundle."""
    paths = DataPaths(root)
    if not paths.splits.exists():
        root.mkdir(parents=True, exist_ok=True)
        paths.splits.symlink_to(splits_dir)
    return train_bundle(paths, training_config("quick", epochs=epochs, width=12, batch_size=16), code_version="test")


def add(settings: PipelineSettings, bundle_dir: Path) -> str:
    """Copy a bundle so that it is the newest; return its version."""
    models_dir = settings.paths.models
    number = len(Registry(models_dir).versions()) + 1
    target = models_dir / f"2099010{number}-000000-{bundle_dir.name[-8:]}"
    shutil.copytree(bundle_dir, target)
    change_manifest(target, version=target.name)
    return target.name


def materialize(settings: PipelineSettings, *keys: str, force_reason: str | None = None) -> dg.ExecuteInProcessResult:
    """Materialize evaluation and packing, or some assets of these."""
    config = {"ops": {"evaluation_report": {"config": {"force_reason": force_reason}}}} if force_reason else None
    return dg.materialize(
        [evaluation_report, emotion_bento, candidate_is_not_worse],
        resources={"settings": settings},
        selection=dg.AssetSelection.assets(*keys) if keys else None,
        run_config=config,
        raise_on_error=False,
    )
