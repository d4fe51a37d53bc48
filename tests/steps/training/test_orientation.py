"""Rotated and inverted faces are corrected before they are classified."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file

from emotion_assets.core.bundle import INT8_MODEL_NAME, ORIENTATION_WEIGHTS_NAME, read_manifest
from emotion_assets.core.classifier import Classifier
from emotion_assets.steps.splits.assignment import SPLITS
from emotion_assets.steps.splits.splits import read_split
from emotion_assets.steps.training import export
from emotion_assets.steps.training.model import NUM_ORIENTATIONS, OrientationNet, apply_orientation, preprocess
from emotion_assets.steps.training.run import train_bundle
from tests.steps.training.helpers import link_splits, tiny


def test_the_bundle_recognizes_orientations_of_drawn_faces(
    drawn_root: Path, tmp_path: Path, log_lines: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network learns them from faces alone, in float32, and the exported graph corrects most rotated faces."""
    # Twenty validation images may reject the int8 graph.
    monkeypatch.setattr(export, "MAX_ADDED_LOG_LOSS", 10.0)
    paths = link_splits(drawn_root, tmp_path)
    config = tiny(epochs=12, batch_size=8, dropout=0.2, learning_rate=0.03, is_progressive=False, precision="auto")
    config = config.model_copy(update={"corrects_orientation": True})
    bundle_dir = train_bundle(paths, config, code_version="test")
    assert any(line.startswith("Orientation: Epoch 12 of 12") for line in log_lines())
    assert not list(paths.training_runs.rglob("*.ckpt"))
    assert ORIENTATION_WEIGHTS_NAME in read_manifest(bundle_dir).files

    network = OrientationNet()
    network.load_state_dict(load_file(bundle_dir / ORIENTATION_WEIGHTS_NAME))
    network.eval()
    # All splits, and without the prior for upright faces, so that the result hangs on no single image.
    pixels = np.concatenate([read_split(paths.splits, name).pixels for name in SPLITS])
    views = preprocess(torch.from_numpy(pixels))
    orientations = torch.arange(len(views)) % NUM_ORIENTATIONS
    upside_down = torch.full((len(views),), 4)
    with torch.inference_mode():
        found = network(apply_orientation(views, orientations)).argmax(dim=1)
        is_clear = (network.predict(views) == 0) & (
            network.predict(apply_orientation(views, upside_down)) == upside_down
        )
    assert (found == orientations).float().mean() > 0.5  # one in eight by chance
    assert_in_float32(bundle_dir / INT8_MODEL_NAME)

    clear = pixels[is_clear.numpy()]
    classifier = Classifier(bundle_dir)
    classifier.self_test()
    assert len(clear) > 0
    upright, rotated = (classifier.predict(shown) for shown in (clear, np.rot90(clear, 2, (1, 2)).copy()))
    # Standardizing rounds in another order, which moves int8 values by a step; an uncorrected face moves by 0.8.
    assert upright.probabilities == pytest.approx(rotated.probabilities, abs=0.1)


def assert_in_float32(path: Path) -> None:
    """No convolution of the orientation network is quantized."""
    graph = onnx.load(path).graph
    producers = {name: node for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv" and node.input[1].startswith("orientation.")]
    assert len(convolutions) == 4
    assert not any(
        name in producers and "Quantize" in producers[name].op_type for node in convolutions for name in node.input
    )
