"""One training run from splits to bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from emotion_assets.core.files import locked
from emotion_assets.steps.training.config import training_config
from emotion_assets.steps.training.export import export_bundle
from emotion_assets.steps.training.launch import launch
from emotion_assets.steps.training.train import discard_checkpoint, train


def train_bundle(
    splits_dir: Path,
    models_dir: Path,
    work_dir: Path,
    *,
    preset: str,
    overrides: Mapping[str, Any],
    code_version: str,
    tracker: str = "none",
    log: Callable[[str], None] = lambda _: None,
) -> Path:
    """Train with `preset` and `overrides`, write the bundle below `models_dir`, and return its folder.

    Raises:
        UnusableDataError: there are no splits, or no such preset or tracker.
        FloatingPointError: the loss became infinite or not a number.
        RuntimeError: one of several processes ended without saying why.
        BundleMismatchError: the exported graph answers differently from the network.
    """
    config = training_config(preset, **overrides)
    # Two runs at once would share cores and checkpoints; the second waits.
    with locked(models_dir / ".training.lock"):
        if config.devices > 1:
            return launch(splits_dir, models_dir, work_dir, config, code_version=code_version, tracker=tracker, log=log)
        trained = train(splits_dir, work_dir, config, code_version=code_version, tracker=tracker, log=log)
        bundle_dir = export_bundle(trained, models_dir, code_version, log)
        discard_checkpoint(work_dir, trained, code_version)
    return bundle_dir
