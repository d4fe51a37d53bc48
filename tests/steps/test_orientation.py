"""Faces that lie on their side, stand on their head or are negatives are put right before they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file

from emotion_assets.core.bundle import INT8_MODEL_NAME, ORIENTATION_WEIGHTS_NAME, read_manifest
from emotion_assets.core.classifier import Classifier
from emotion_assets.steps.splits.splits import read_split
from emotion_assets.steps.training.model import (
    INPUT_SIZE_PX,
    NUM_ORIENTATIONS,
    EmotionNet,
    InferenceModel,
    OrientationNet,
    apply_orientation,
    correct_orientation,
    prepare,
    turned,
)
from emotion_assets.steps.training.run import train_bundle


class KnownPose(OrientationNet):
    """Stands for a network that is always right."""

    def __init__(self, answers: torch.Tensor) -> None:
        super().__init__(width=1)
        self.answers = answers

    def orientations(self, batch: torch.Tensor) -> torch.Tensor:
        del batch
        return self.answers


def test_turns_are_quarter_turns_to_the_left() -> None:
    """Each image of a batch by its own number, all channels alike."""
    batch = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))

    found = turned(batch, torch.tensor([0, 1, 2, 3]))

    for quarters in range(4):
        assert torch.equal(found[quarters], torch.rot90(batch[quarters], quarters, (1, 2)))


def test_righting_undoes_every_orientation() -> None:
    """All eight of them, and they differ."""
    batch = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).expand(NUM_ORIENTATIONS, -1, -1, -1)
    orientations = torch.arange(NUM_ORIENTATIONS)
    shown = apply_orientation(batch, orientations)

    assert torch.equal(correct_orientation(shown, orientations), batch)
    assert len(torch.unique(shown, dim=0)) == NUM_ORIENTATIONS


def test_a_face_in_any_orientation_gets_the_answer_of_the_upright_one() -> None:
    """Probabilities are the same; the maps lie on the face as it was sent."""
    pixels = torch.randint(0, 256, (1, 64, 64), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    network = EmotionNet(8).eval()
    upright = InferenceModel(network, 1.0).eval()(pixels)

    for orientation in range(NUM_ORIENTATIONS):
        sent = torch.rot90(pixels, orientation // 2, (1, 2))
        sent = 255 - sent if orientation % 2 else sent
        found = InferenceModel(network, 1.0, KnownPose(torch.tensor([orientation]))).eval()(sent)
        assert torch.allclose(found.probabilities, upright.probabilities, atol=1e-5)
        maps = torch.rot90(upright.activation_maps, orientation // 2, (2, 3))
        assert torch.allclose(found.activation_maps, maps, atol=1e-4)


def test_without_a_clear_sign_a_face_is_left_alone() -> None:
    """Nearly all faces that come stand upright, so a slight preference for another orientation is not enough."""
    network = OrientationNet(width=2).eval()
    torch.nn.init.zeros_(network.head.weight)
    network.head.bias.data = torch.tensor([0.0, 0, 3, 0, 0, 0, 0, 0])
    batch = torch.zeros(2, 1, INPUT_SIZE_PX, INPUT_SIZE_PX)
    assert network.orientations(batch).tolist() == [0, 0]

    network.head.bias.data[2] = 6
    assert network.orientations(batch).tolist() == [2, 2]


@pytest.fixture(scope="module")
def righting_bundle(drawn_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a network of orientations that learnt for some epochs."""
    root = tmp_path_factory.mktemp("orientations")
    choices = {"epochs": 12, "width": 4, "batch_size": 8, "corrects_orientation": True, "quantize_int8": True}
    lines: list[str] = []
    bundle_dir = train_bundle(
        drawn_root / "splits",
        root / "models",
        root / "work",
        preset="quick",
        overrides=choices,
        code_version="test",
        log=lines.append,
    )
    assert any(line.startswith("Orientations: Epoch 12 of 12") for line in lines)
    assert not list(root.glob("work/**/*.ckpt"))
    return bundle_dir


def test_the_bundle_recognises_orientations_of_drawn_faces(righting_bundle: Path, drawn_root: Path) -> None:
    """It learns them from faces alone, and most turned faces are answered like upright ones by the graph that runs."""
    manifest = read_manifest(righting_bundle)
    assert ORIENTATION_WEIGHTS_NAME in manifest.files
    network = OrientationNet()
    network.load_state_dict(load_file(righting_bundle / ORIENTATION_WEIGHTS_NAME))
    pixels = read_split(drawn_root / "splits", "val").pixels
    views = prepare(torch.from_numpy(pixels))
    orientations = torch.arange(len(views)) % NUM_ORIENTATIONS
    with torch.inference_mode():
        found = network.eval().orientations(apply_orientation(views, orientations))
    assert (found == orientations).float().mean() > 0.4  # one in eight by chance

    graph = onnx.load(righting_bundle / INT8_MODEL_NAME).graph
    made_by = {name: node for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    in_float32 = [node for node in convolutions if node.input[1].startswith("orientation.")]
    assert len(in_float32) == 4
    assert not any(
        name in made_by and "Quantize" in made_by[name].op_type for node in in_float32 for name in node.input
    )

    on_head = torch.full((len(views),), 4)
    with torch.inference_mode():
        is_clear = (network.orientations(views) == 0) & (
            network.orientations(apply_orientation(views, on_head)) == on_head
        )
    classifier = Classifier(righting_bundle)
    classifier.self_test()
    clear = pixels[is_clear.numpy()]
    answers = [classifier.predict(shown).probabilities for shown in (clear, np.rot90(clear, 2, (1, 2)).copy())]
    assert len(clear) > 0
    assert answers[0] == pytest.approx(answers[1], abs=1e-3)
