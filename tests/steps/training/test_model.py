from __future__ import annotations

import pytest
import torch

from emotion_assets.steps.training.model import (
    INPUT_SIZE_PX,
    NUM_ORIENTATIONS,
    EmotionNet,
    InferenceModel,
    OrientationNet,
    apply_orientation,
    correct_orientation,
    fuse_batch_norm,
    preprocess,
    rotate_quarters,
    standardize,
)


def draw_pixels(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 64, 64), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(("width", "num_blocks"), [(4, 2), (8, 2), (4, 1), (4, 3)])
def test_network_returns_logits_for_every_emotion(width: int, num_blocks: int) -> None:
    """Five logits per image, whatever width and depth."""
    network = EmotionNet(width, num_blocks=num_blocks).eval()

    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in network.modules()) == 3 + 2 * num_blocks
    assert network(torch.zeros(3, 1, INPUT_SIZE_PX, INPUT_SIZE_PX)).shape == (3, 5)


def test_inference_model_takes_raw_pixels() -> None:
    """Probabilities sum to 1, maps have the feature grid, and a higher temperature lowers the confidence."""
    network, pixels = EmotionNet(8).eval(), draw_pixels(4)
    cool, hot = InferenceModel(network, 0.5).eval(), InferenceModel(network, 5.0).eval()

    output = cool(pixels)

    assert output.probabilities.sum(dim=1).tolist() == pytest.approx([1, 1, 1, 1], abs=1e-5)
    assert output.embedding.shape == (4, 32)
    assert output.activation_maps.shape == (4, 5, 6, 6)
    assert hot(pixels).probabilities.max() < output.probabilities.max()


def test_fused_network_predicts_the_same() -> None:
    """Folding batch normalization into the convolutions changes nothing, and the original keeps its own."""
    network, batch = EmotionNet(8).train(), preprocess(draw_pixels(16))
    network(batch)
    network.eval()
    fused = fuse_batch_norm(network)

    assert torch.allclose(fused(batch), network(batch), atol=1e-5)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in fused.modules())
    assert any(isinstance(layer, torch.nn.BatchNorm2d) for layer in network.modules())


def test_standardize_removes_light_and_contrast() -> None:
    """A darker copy of lower contrast gives the same input."""
    gray = torch.rand(2, 1, 48, 48, generator=torch.Generator().manual_seed(0))

    assert torch.allclose(standardize(gray), standardize(gray * 0.6 + 0.1), atol=0.1)
    assert torch.isfinite(standardize(torch.zeros(1, 1, 48, 48))).all()


def test_quarter_turns_go_left() -> None:
    """Each image of a batch by its own number, all channels alike."""
    batch = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))

    rotated = rotate_quarters(batch, torch.tensor([0, 1, 2, 3]))

    for quarters in range(4):
        assert torch.equal(rotated[quarters], torch.rot90(batch[quarters], quarters, (1, 2)))


def test_correction_undoes_every_orientation() -> None:
    """All eight of them, and they differ."""
    batch = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).expand(NUM_ORIENTATIONS, -1, -1, -1)
    orientations = torch.arange(NUM_ORIENTATIONS)
    oriented = apply_orientation(batch, orientations)

    assert torch.equal(correct_orientation(oriented, orientations), batch)
    assert len(torch.unique(oriented, dim=0)) == NUM_ORIENTATIONS


class PerfectOrientationNet(OrientationNet):
    """Stands for a network that is always right."""

    def __init__(self, orientations: torch.Tensor) -> None:
        super().__init__(width=1)
        self.orientations = orientations

    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        del batch
        return self.orientations


@pytest.mark.parametrize("orientation", range(NUM_ORIENTATIONS))
def test_a_face_in_any_orientation_gets_the_prediction_of_the_upright_one(orientation: int) -> None:
    """Probabilities are the same; the maps lie on the face as it was sent."""
    pixels, network = draw_pixels(1), EmotionNet(8).eval()
    upright = InferenceModel(network, 1.0).eval()(pixels)
    sent = torch.rot90(pixels, orientation // 2, (1, 2))
    sent = 255 - sent if orientation % 2 else sent

    output = InferenceModel(network, 1.0, PerfectOrientationNet(torch.tensor([orientation]))).eval()(sent)

    assert torch.allclose(output.probabilities, upright.probabilities, atol=1e-5)
    maps = torch.rot90(upright.activation_maps, orientation // 2, (2, 3))
    assert torch.allclose(output.activation_maps, maps, atol=1e-4)


def test_weak_evidence_leaves_a_face_as_it_is() -> None:
    """Nearly all faces are upright, so a slight preference for another orientation is not enough."""
    network = OrientationNet(width=2).eval()
    torch.nn.init.zeros_(network.head.weight)
    network.head.bias.data = torch.tensor([0.0, 0, 3, 0, 0, 0, 0, 0])
    batch = torch.zeros(2, 1, INPUT_SIZE_PX, INPUT_SIZE_PX)
    assert network.predict(batch).tolist() == [0, 0]

    network.head.bias.data[2] = 6
    assert network.predict(batch).tolist() == [2, 2]


def test_any_nesting_of_blocks_is_fused() -> None:
    """A network of your own may have residual blocks in its body."""

    class Residual(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Sequential(
                torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.BatchNorm2d(8)
            )

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return batch + self.inner(batch)

    network, batch = EmotionNet(8).train(), preprocess(draw_pixels(16))
    network.body.insert(1, Residual())
    network.body.insert(2, torch.nn.Sequential(torch.nn.Conv2d(8, 8, 1)))
    network(batch)
    network.eval()
    fused = fuse_batch_norm(network)

    assert torch.allclose(fused(batch), network(batch), atol=1e-5)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in fused.modules())
