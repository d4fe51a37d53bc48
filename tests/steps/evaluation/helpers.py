"""Simulated predictions, and data roots with bundles, for the tests of evaluation and registry."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.evaluation.gate import GateConfig
from emotion_assets.steps.evaluation.scores import LabelledPredictions
from tests.bundles import change_manifest

LENIENT = GateConfig(min_skill=-1, min_recall_over_chance=0, max_calibration_error=1, min_images_compared=1)
STRICT = GateConfig(min_skill=1.1)


def simulate(
    accuracy: float, *, version: str = "new", count: int = 1000, seed: int = 0, confidence: float = 0.9
) -> LabelledPredictions:
    """Simulate a model that is correct with probability `accuracy`, independently on each image."""
    rng = np.random.default_rng(seed)
    truth = np.arange(count) % 5
    predicted = np.where(rng.random(count) < accuracy, truth, (truth + rng.integers(1, 5, count)) % 5)
    probabilities = np.full((count, 5), (1 - confidence) / 4, dtype=np.float32)
    probabilities[np.arange(count), predicted] = confidence
    return LabelledPredictions(version, probabilities, truth)


def version(number: int) -> str:
    return f"20260101-0000{number:02}-0000000{number % 10}"


def add_bundle(models_dir: Path, bundle_dir: Path, number: int) -> str:
    """Copy a bundle under another version."""
    target = models_dir / version(number)
    shutil.copytree(bundle_dir, target)
    change_manifest(target, version=target.name)
    return target.name


def link_data(root: Path, drawn_root: Path) -> DataPaths:
    """Make `root` a data root with the splits and the catalogue of the drawn faces."""
    for name in ("splits", "catalogue"):
        (root / name).symlink_to(drawn_root / name)
    return DataPaths(root)
