from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from emotion_assets.steps.training.augment import augment, sampling_grid
from emotion_assets.steps.training.model import INPUT_SIZE_PX, EmotionNet, InferenceModel, prepare, standardize
from emotion_assets.steps.training.optim import MuonWithAdamW, orthogonalize


def some_pixels(count: int = 4, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 64, 64), generator=generator, dtype=torch.uint8)


def test_network_gives_logits_for_every_emotion() -> None:
    """A batch in, five logits an image out, whatever width and depth."""
    for width, num_blocks in ((4, 2), (8, 2), (4, 1), (4, 3)):
        network = EmotionNet(width, num_blocks=num_blocks).eval()
        assert sum(isinstance(layer, torch.nn.Conv2d) for layer in network.modules()) == 3 + 2 * num_blocks
        assert network(torch.zeros(3, 1, INPUT_SIZE_PX, INPUT_SIZE_PX)).shape == (3, 5)


def test_served_network_takes_raw_pixels() -> None:
    """Probabilities sum to 1, maps keep the grid, and a higher temperature makes answers less sure."""
    network = EmotionNet(8).eval()
    cool, hot = InferenceModel(network, 0.5).eval(), InferenceModel(network, 5.0).eval()

    served = cool(some_pixels())

    assert served.probabilities.sum(dim=1).tolist() == pytest.approx([1, 1, 1, 1], abs=1e-5)
    assert served.embedding.shape == (4, 32)
    assert served.activation_maps.shape == (4, 5, 6, 6)
    assert hot(some_pixels()).probabilities.max() < served.probabilities.max()


def test_standardise_removes_light_and_contrast() -> None:
    """A darker and flatter copy looks the same to the network."""
    gray = torch.rand(2, 1, 48, 48, generator=torch.Generator().manual_seed(0))

    assert torch.allclose(standardize(gray), standardize(gray * 0.6 + 0.1), atol=0.1)
    assert torch.isfinite(standardize(torch.zeros(1, 1, 48, 48))).all()


@pytest.mark.parametrize("side_px", [7, 32, 48])
def test_views_look_where_torch_would(side_px: int) -> None:
    """The cheaper grid is `affine_grid`'s, to the last digit but one."""
    affine = torch.randn((5, 2, 3), generator=torch.Generator().manual_seed(side_px))

    theirs = functional.affine_grid(affine, [5, 1, side_px, side_px], align_corners=False)

    assert torch.allclose(sampling_grid(affine, side_px), theirs, atol=1e-6)


def test_augment_depends_on_the_generator_alone() -> None:
    """Same generator state, same views; the next batch differs."""
    generator = torch.Generator().manual_seed(3)
    first = augment(some_pixels(), 48, generator)
    second = augment(some_pixels(), 48, generator)
    again = augment(some_pixels(), 48, torch.Generator().manual_seed(3))

    assert first.shape == (4, 1, INPUT_SIZE_PX, INPUT_SIZE_PX)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_views_are_made_in_32_bits() -> None:
    """Whatever the network's arithmetic: CUDA rejects to mix them, and a CPU would blur in 16 bits."""
    pixels = some_pixels(64)
    plain = augment(pixels, 48, torch.Generator().manual_seed(3))
    with torch.autocast("cpu", torch.bfloat16):
        views = augment(pixels, 48, torch.Generator().manual_seed(3))

    assert views.dtype == torch.float32
    assert torch.equal(views, plain)


def test_augment_keeps_a_face_recognisable() -> None:
    """A view differs from its image, but correlates with it or with its mirror image."""
    down = torch.linspace(0, 255, 64)[:, None].expand(64, 64)
    pixels = down.to(torch.uint8)[None].repeat(64, 1, 1)

    views = augment(pixels, 48, torch.Generator().manual_seed(0))
    plain = prepare(pixels)
    correlation = torch.stack(
        [torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] for a, b in zip(views, plain, strict=True)]
    )

    assert correlation.median() > 0.7
    assert (correlation > 0.3).float().mean() > 0.9
    assert correlation.max() < 1


@pytest.mark.parametrize("shape", [(8, 72), (72, 8), (16, 16)])
def test_orthogonalise_makes_singular_values_equal(shape: tuple[int, int]) -> None:
    """Muon's property: the update has singular values near 1, whatever the gradient's were."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 100

    values = torch.linalg.svdvals(orthogonalize(matrix))

    assert values.min() > 0.5
    assert values.max() < 1.3


def test_muon_takes_the_filters_and_adam_the_rest() -> None:
    """The stem has one input channel and is left to AdamW."""
    network = EmotionNet(4)
    optimizer = MuonWithAdamW(network, learning_rate=0.02, adam_learning_rate=0.002, weight_decay=0.1)
    muon, *others = (group["params"] for group in optimizer.param_groups)
    adam = [parameter for group in others for parameter in group]

    assert len(muon) == 6
    assert all(parameter.ndim == 4 and parameter.shape[1] > 1 for parameter in muon)
    assert len(muon) + len(adam) == len(list(network.parameters()))


def test_optimizer_fits_a_small_problem() -> None:
    """A few steps on one batch bring the loss down to almost nothing."""
    torch.manual_seed(0)
    network = EmotionNet(8, dropout=0)
    optimizer = MuonWithAdamW(network, learning_rate=0.02, adam_learning_rate=0.005, weight_decay=0)
    batch, truth = prepare(some_pixels(10)), torch.arange(10) % 5

    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(batch), truth)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < 0.1 * losses[0]
