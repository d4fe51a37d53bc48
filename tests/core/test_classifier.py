from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from emotion_assets.core.classifier import Classifier, golden_input
from emotion_assets.core.errors import BundleMismatchError
from tests.bundles import change_manifest


def test_predict_gives_calibrated_probabilities_of_any_batch(bundle_dir: Path) -> None:
    """Rows sum to 1, and an image's prediction does not depend on its batch."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 64, 64)).astype(np.uint8)
    classifier = Classifier(bundle_dir)

    together = classifier.predict(pixels, with_embedding=True, with_maps=True)
    alone = classifier.predict(pixels[299:])

    assert together.probabilities.shape == (300, 5)
    assert together.probabilities.sum(axis=1) == pytest.approx(np.ones(300), abs=1e-5)
    assert together.probabilities[299] == pytest.approx(alone.probabilities[0], abs=1e-6)
    assert together.embedding is not None
    assert together.embedding.shape[0] == 300
    assert together.activation_maps is not None
    assert together.activation_maps.shape[:2] == (300, 5)
    assert alone.embedding is None


def test_self_test_passes_for_the_model_as_made(bundle_dir: Path) -> None:
    """A new model gives its recorded prediction."""
    Classifier(bundle_dir).self_test()


def test_self_test_rejects_another_prediction(bundle_dir: Path, tmp_path: Path) -> None:
    """A model whose prediction differs from the recorded one must not serve."""
    own = Path(shutil.copytree(bundle_dir, tmp_path / bundle_dir.name))
    change_manifest(own, golden_prediction=[0.9, 0.025, 0.025, 0.025, 0.025])

    with pytest.raises(BundleMismatchError, match="golden input"):
        Classifier(own).self_test()


def test_golden_input_is_one_image() -> None:
    """It has the shape and type of the network's input."""
    assert golden_input().shape == (1, 64, 64)
    assert golden_input().dtype == np.uint8
