from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from emotion_assets.core.bundle import REFERENCE_NAME, WEIGHTS_NAME, read_manifest
from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.classifier import Classifier
from emotion_assets.core.errors import BundleMismatchError
from emotion_assets.core.features import feature_columns
from emotion_assets.steps.splits.splits import read_split
from emotion_assets.steps.training.export import check_parity, make_version
from emotion_assets.steps.training.model import EmotionNet, InferenceModel


def test_weights_predict_what_the_graph_predicts(bundle_dir: Path, drawn_root: Path) -> None:
    """The network rebuilt from weights and manifest equals the exported graph."""
    manifest = read_manifest(bundle_dir)
    network = EmotionNet(manifest.configuration["width"], manifest.configuration["dropout"])
    network.load_state_dict(load_file(bundle_dir / WEIGHTS_NAME))
    pixels = read_split(drawn_root / "splits", "test").pixels

    with torch.inference_mode():
        expected = InferenceModel(network.eval(), manifest.temperature).eval()(torch.from_numpy(pixels)).probabilities

    assert Classifier(bundle_dir).predict(pixels).probabilities == pytest.approx(expected.numpy(), abs=1e-4)


def test_reference_has_the_validation_faces(bundle_dir: Path, drawn_root: Path) -> None:
    """One row per face, with every logged column and the true emotion."""
    reference = pd.read_parquet(bundle_dir / REFERENCE_NAME)
    val = read_split(drawn_root / "splits", "val")

    assert list(reference.columns) == [*feature_columns(EMOTIONS), "true_emotion"]
    assert list(reference["true_emotion"]) == [EMOTIONS[index] for index in val.class_indices]


def test_parity_check_rejects_other_weights(bundle_dir: Path) -> None:
    """A graph of another network does not pass."""
    other = InferenceModel(EmotionNet(8).eval(), 1.0).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 64, 64)).astype(np.uint8)

    with pytest.raises(BundleMismatchError, match="differ"):
        check_parity(other, onnxruntime.InferenceSession(bundle_dir / "model.onnx"), pixels)


def test_versions_sort_by_time_even_if_the_clock_goes_back(tmp_path: Path) -> None:
    """A version that was made after another sorts after it."""
    now = datetime(2026, 1, 1, 12, 0, 59, tzinfo=UTC)
    earlier = datetime(2025, 1, 1, tzinfo=UTC)
    versions = []
    for moment in (now, now, earlier):
        versions.append(make_version(tmp_path, moment, b"weights"))
        (tmp_path / versions[-1]).mkdir()

    assert versions == sorted(versions)
    assert len(set(versions)) == 3
