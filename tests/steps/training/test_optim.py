from __future__ import annotations

import pytest
import torch

from emotion_assets.steps.training.model import EmotionNet, preprocess
from emotion_assets.steps.training.optim import MuonWithAdamW, orthogonalize


@pytest.mark.parametrize("shape", [(8, 72), (72, 8), (16, 16)])
def test_orthogonalize_equalizes_singular_values(shape: tuple[int, int]) -> None:
    """The update has singular values near 1, whatever the gradient's were."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 100

    values = torch.linalg.svdvals(orthogonalize(matrix))

    assert values.min() > 0.5
    assert values.max() < 1.3


def test_muon_trains_the_filters_and_adam_the_rest() -> None:
    """The stem has one input channel and is left to AdamW."""
    network = EmotionNet(4)
    optimizer = MuonWithAdamW(network, learning_rate=0.02, adam_learning_rate=0.002, weight_decay=0.1)
    muon, *others = (group["params"] for group in optimizer.param_groups)
    adam = [parameter for group in others for parameter in group]

    assert len(muon) == 6
    assert all(parameter.ndim == 4 and parameter.shape[1] > 1 for parameter in muon)
    assert len(muon) + len(adam) == len(list(network.parameters()))


def test_optimizer_fits_a_small_problem() -> None:
    """A few steps on one batch reduce the loss to almost nothing."""
    torch.manual_seed(0)
    network = EmotionNet(8, dropout=0)
    optimizer = MuonWithAdamW(network, learning_rate=0.02, adam_learning_rate=0.005, weight_decay=0)
    batch, truth = preprocess(torch.randint(0, 256, (10, 64, 64), dtype=torch.uint8)), torch.arange(10) % 5

    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(batch), truth)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < 0.1 * losses[0]
