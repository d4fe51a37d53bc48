from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from emotion_assets.core.bundle import MODEL_NAME, read_manifest
from emotion_assets.core.classifier import Classifier, golden_input
from emotion_assets.core.errors import BundleMismatchError
from emotion_assets.core.files import file_sha256
from tests.bundles import change_manifest


def test_predict_gives_calibrated_probabilities_of_any_batch(bundle_dir: Path) -> None:
    """Rows sum to 1, and an image's prediction does not depend on its batch."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 64, 64)).astype(np.uint8)
    classifier = Classifier(bundle_dir)

    together = classifier.predict(pixels, with_maps=True)
    alone = classifier.predict(pixels[299:])

    assert together.probabilities.shape == (300, 5)
    assert together.probabilities.sum(axis=1) == pytest.approx(np.ones(300), abs=1e-5)
    assert together.probabilities[299] == pytest.approx(alone.probabilities[0], abs=1e-6)
    assert together.activation_maps is not None
    assert together.activation_maps.shape[:2] == (300, 5)
    assert alone.activation_maps is None


def test_self_test_passes_for_the_model_as_made(bundle_dir: Path) -> None:
    """A new model gives its recorded prediction."""
    Classifier(bundle_dir).self_test()


def test_self_test_rejects_another_prediction(bundle_dir: Path, tmp_path: Path) -> None:
    """A model whose prediction differs from the recorded one must not serve."""
    own = Path(shutil.copytree(bundle_dir, tmp_path / bundle_dir.name))
    change_manifest(own, golden_prediction=[0.9, 0.025, 0.025, 0.025, 0.025])

    with pytest.raises(BundleMismatchError, match="golden input"):
        Classifier(own).self_test()


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self._command,)


def test_a_pickle_with_the_right_hash_runs_nothing(bundle_dir: Path, tmp_path: Path) -> None:
    """Only the format decides: whoever alters the model can alter the manifest, too."""
    own = Path(shutil.copytree(bundle_dir, tmp_path / bundle_dir.name))
    proof = tmp_path / "proof"
    (own / MODEL_NAME).write_bytes(pickle.dumps(Command(f"touch {proof}")))
    change_manifest(own, files=read_manifest(own).files | {MODEL_NAME: file_sha256(own / MODEL_NAME)})

    with pytest.raises(BundleMismatchError, match="does not load"):
        Classifier(own)

    assert not proof.exists()


def test_golden_input_is_one_image() -> None:
    """It has the shape and type of the network's input."""
    assert golden_input().shape == (1, 64, 64)
    assert golden_input().dtype == np.uint8
