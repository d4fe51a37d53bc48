"""One training run from splits to bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from emotion_assets.core.bundle import check_files, complete_versions, read_manifest
from emotion_assets.core.errors import BundleMismatchError
from emotion_assets.core.files import locked
from emotion_assets.steps.splits.splits import read_manifest as read_splits_manifest
from emotion_assets.steps.training.checkpoints import remove_run_files, run_key
from emotion_assets.steps.training.config import TrainingConfig, training_config
from emotion_assets.steps.training.export import environment, export_bundle
from emotion_assets.steps.training.launch import launch
from emotion_assets.steps.training.train import train


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

    The newest bundle is returned instead if it was trained on the same data, with the same configuration, code and
    libraries: it would only come out once more, and whatever watches a model would begin again.

    Raises:
        UnusableDataError: there are no splits, or no such preset or tracker.
        FloatingPointError: the loss became infinite or not a number.
        RuntimeError: one of several processes ended without saying why.
        BundleMismatchError: the exported graph answers differently from the network.
    """
    config = training_config(preset, **overrides)
    # Two runs at once would share cores and checkpoints; the second waits.
    with locked(models_dir / ".training.lock"):
        if equal := _find_equal_bundle(splits_dir, models_dir, config, code_version):
            # It may have been killed when its bundle was written, and before it had tidied up.
            remove_run_files(work_dir / run_key(read_manifest(equal).data_fingerprint, config, code_version))
            log(f"Nothing has changed since {equal.name} was trained: it stays. Another seed trains another model.")
            return equal
        if config.devices > 1:
            return launch(splits_dir, models_dir, work_dir, config, code_version=code_version, tracker=tracker, log=log)
        trained = train(splits_dir, work_dir, config, code_version=code_version, tracker=tracker, log=log)
        bundle_dir = export_bundle(trained, models_dir, code_version, log)
        remove_run_files(work_dir / run_key(trained.data_fingerprint, config, code_version))
    return bundle_dir


def _find_equal_bundle(splits_dir: Path, models_dir: Path, config: TrainingConfig, code_version: str) -> Path | None:
    """Return the newest bundle if training would give the same one, else None."""
    versions = complete_versions(models_dir)
    if not versions or config.max_minutes is not None:  # whose outcome depends on the machine's other work
        return None
    bundle_dir = models_dir / versions[-1]
    try:
        manifest = read_manifest(bundle_dir)
        check_files(bundle_dir, manifest)
    except BundleMismatchError:
        return None
    inputs = (read_splits_manifest(splits_dir)["fingerprint"], dataclasses.asdict(config), code_version, environment())
    made_from = (manifest.data_fingerprint, manifest.configuration, manifest.code_version, manifest.environment)
    return bundle_dir if made_from == inputs else None
