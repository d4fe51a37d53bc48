"""One training run from splits to bundle."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Final

from emotion_assets.core.bundle import check_files, complete_versions, read_manifest, runtime_precision
from emotion_assets.core.errors import BundleMismatchError
from emotion_assets.core.files import locked
from emotion_assets.core.layout import DataPaths
from emotion_assets.core.summary import Summary
from emotion_assets.steps.splits.splits import read_manifest as read_splits_manifest
from emotion_assets.steps.training.checkpoints import remove_run_files, run_key
from emotion_assets.steps.training.config import TrainingConfig
from emotion_assets.steps.training.export import read_environment, train_and_export
from emotion_assets.steps.training.figures import learning_curve_figure
from emotion_assets.steps.training.launch import launch
from emotion_assets.steps.training.precision import resolve_precision
from emotion_assets.steps.training.ray_launch import launch_on_ray

TRAINING_LOCK_NAME: Final = ".training.lock"

_logger = logging.getLogger(__name__)


def train_bundle(
    paths: DataPaths, config: TrainingConfig, *, code_version: str, tracker: str = "none", engine: str = "local"
) -> Path:
    """Train, write the bundle below `paths.models`, and return its folder.

    If the newest bundle has the same data, configuration, code and libraries, it is returned instead: training would
    only repeat it, and everything downstream would run again. No checkpoint of another `code_version` is used.
    `tracker` is one of Tracker, `engine` is `local`, or `ray` to train on the nodes of a Ray cluster.

    Raises:
        UnusableDataError: there are no splits, or no such tracker.
        FloatingPointError: the loss became infinite or NaN.
        RuntimeError: one of several processes ended without an error of its own.
        BundleMismatchError: the exported graph does not predict what the network predicts.
    """
    # Two runs at once would share cores and checkpoints; the second waits.
    with locked(paths.models / TRAINING_LOCK_NAME):
        if equal := _find_equal_bundle(paths, config, code_version):
            # The run may have been killed after it wrote its bundle and before it removed its files.
            fingerprint = read_manifest(equal).data_fingerprint
            remove_run_files(paths.training_runs / run_key(fingerprint, config, code_version))
            _logger.info("Nothing has changed since %s was trained. Change the seed for another model.", equal.name)
            return equal
        if engine == "ray":
            return launch_on_ray(paths, config, code_version=code_version, tracker=tracker)
        if config.devices > 1:
            resolve_precision(config, paths.training_runs)  # measured once, for all processes
            return launch(paths, config, code_version=code_version, tracker=tracker)
        bundle_dir = train_and_export(paths, config, code_version=code_version, tracker=tracker)
    assert bundle_dir is not None
    return bundle_dir


def _find_equal_bundle(paths: DataPaths, config: TrainingConfig, code_version: str) -> Path | None:
    """Return the newest bundle if training would repeat it, else None."""
    versions = complete_versions(paths.models)
    if not versions or config.max_minutes is not None:  # the outcome depends on the load of the machine
        return None
    bundle_dir = paths.models / versions[-1]
    try:
        manifest = read_manifest(bundle_dir)
        check_files(bundle_dir, manifest)
    except BundleMismatchError:
        return None
    splits = read_splits_manifest(paths.splits)
    inputs = (splits["fingerprint"], splits["titles"], config.model_dump(), code_version, read_environment())
    made_from = (
        manifest.data_fingerprint,
        list(manifest.titles.values()),
        manifest.configuration,
        manifest.code_version,
        manifest.environment,
    )
    return bundle_dir if made_from == inputs else None


def bundle_summary(bundle_dir: Path) -> Summary:
    """Summarize a trained bundle: validation scores, cost, learning curves and configuration."""
    manifest = read_manifest(bundle_dir)
    training = manifest.training
    return Summary(
        values={
            **manifest.metrics,
            "version": manifest.version,
            "temperature": manifest.temperature,
            "epochs": len(training["history"]),
            "num_parameters": training["num_parameters"],
            "runtime_precision": runtime_precision(manifest),
            **{name: training[name] for name in ("seconds", "cpu_seconds", "resumed_from_epoch")},
            "data_fingerprint": manifest.data_fingerprint,
        },
        texts={"configuration": f"```json\n{json.dumps(manifest.configuration, indent=2)}\n```"},
        images={"learning_curves": learning_curve_figure(training["history"])},
        files={"bundle": bundle_dir},
    )
