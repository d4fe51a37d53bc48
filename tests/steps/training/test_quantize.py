"""8-bit convolutions in the runtime graph, where they predict as well."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from sklearn.metrics import log_loss

from emotion_assets.core.bundle import INT8_MODEL_NAME, MODEL_NAME, read_manifest, runtime_model, write_manifest
from emotion_assets.core.classifier import Classifier
from emotion_assets.core.errors import BundleMismatchError
from emotion_assets.steps.splits.splits import read_split
from emotion_assets.steps.training import export
from emotion_assets.steps.training.config import training_config
from emotion_assets.steps.training.run import train_bundle
from tests.steps.training.helpers import link_splits

CONFIG = training_config("quick", epochs=2, width=8, batch_size=32)


@pytest.fixture(scope="module")
def int8_bundle(drawn_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with int8 as its runtime precision."""
    return train_bundle(link_splits(drawn_root, tmp_path_factory.mktemp("int8")), CONFIG, code_version="test")


def test_the_int8_graph_predicts_nearly_the_same(int8_bundle: Path, drawn_root: Path) -> None:
    """Log loss and probabilities stay; the weights are integers of 7 bits, which no processor overflows."""
    val = read_split(drawn_root / "splits", "val")
    manifest = read_manifest(int8_bundle)
    assert runtime_model(manifest) == INT8_MODEL_NAME
    classifier = Classifier(int8_bundle)
    classifier.self_test()
    in_int8 = classifier.predict(val.pixels, with_maps=True)

    manifest.files.pop(INT8_MODEL_NAME)
    plain_dir = int8_bundle.with_name("plain")
    shutil.copytree(int8_bundle, plain_dir, dirs_exist_ok=True)
    write_manifest(plain_dir, manifest)
    in_float32 = Classifier(plain_dir).predict(val.pixels, with_maps=True)

    losses = [log_loss(val.class_indices, each.probabilities, labels=range(5)) for each in (in_float32, in_int8)]
    assert losses[1] == pytest.approx(losses[0], abs=0.01)
    assert np.abs(in_int8.probabilities - in_float32.probabilities).max() < 0.1
    assert in_int8.probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert in_int8.activation_maps is not None
    assert in_float32.activation_maps is not None
    # An 8-bit mean that counts zeros beyond the border, where the network halves an odd size, errs by a tenth.
    errors = np.abs(in_int8.activation_maps - in_float32.activation_maps)
    assert errors.mean() < 0.04 * in_float32.activation_maps.std()
    weights = [
        onnx.numpy_helper.to_array(each)
        for each in onnx.load(int8_bundle / INT8_MODEL_NAME).graph.initializer
        if each.data_type == onnx.TensorProto.INT8 and len(each.dims) == 4
    ]
    assert len(weights) == 6  # all but stem and maps
    assert all(np.abs(each.astype(int)).max() <= 64 for each in weights)


def test_predictions_do_not_depend_on_the_batch(int8_bundle: Path, drawn_root: Path) -> None:
    """The ranges are static, so an image gets the same prediction alone and among others."""
    pixels = read_split(drawn_root / "splits", "val").pixels[:5]
    classifier = Classifier(int8_bundle)
    alone = np.concatenate([classifier.predict(pixels[i : i + 1]).probabilities for i in range(5)])

    assert alone == pytest.approx(classifier.predict(pixels).probabilities, abs=1e-4)


def test_a_worse_int8_graph_is_not_used(
    drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_lines: Callable[[], list[str]]
) -> None:
    """The runtime precision is float32 then, and the log says why."""
    monkeypatch.setattr(export, "MAX_ADDED_LOG_LOSS", -10.0)
    bundle_dir = train_bundle(link_splits(drawn_root, tmp_path), CONFIG, code_version="test")

    assert runtime_model(read_manifest(bundle_dir)) == MODEL_NAME
    assert not (bundle_dir / INT8_MODEL_NAME).exists()
    assert log_lines()[-1].endswith("using float32")
    Classifier(bundle_dir).self_test()


def test_float32_can_be_requested(bundle_dir: Path) -> None:
    """The bundle of the other tests has no int8 graph."""
    assert read_manifest(bundle_dir).configuration["quantize_int8"] is False
    assert INT8_MODEL_NAME not in read_manifest(bundle_dir).files


def test_a_damaged_int8_graph_is_rejected(int8_bundle: Path, tmp_path: Path) -> None:
    """The manifest names it like every other file."""
    damaged = tmp_path / int8_bundle.name
    shutil.copytree(int8_bundle, damaged)
    (damaged / INT8_MODEL_NAME).write_bytes(b"torn")

    with pytest.raises(BundleMismatchError, match=INT8_MODEL_NAME):
        Classifier(damaged)
