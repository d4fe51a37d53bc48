from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from emotion_assets.steps.training.augment import augment, build_sampling_grid, randomize_orientation
from emotion_assets.steps.training.model import INPUT_SIZE_PX, preprocess


def draw_pixels(count: int = 4) -> torch.Tensor:
    return torch.randint(0, 256, (count, 64, 64), generator=seeded(0), dtype=torch.uint8)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("side_px", [7, 32, 48])
def test_grid_equals_that_of_torch(side_px: int) -> None:
    """The cheaper grid is `affine_grid`'s, up to rounding."""
    affine = torch.randn((5, 2, 3), generator=seeded(side_px))

    expected = functional.affine_grid(affine, [5, 1, side_px, side_px], align_corners=False)

    assert torch.allclose(build_sampling_grid(affine, side_px), expected, atol=1e-6)


def test_views_depend_on_the_generator_alone() -> None:
    """The same generator state gives the same views; the next batch differs."""
    generator = seeded(3)
    first, second = augment(draw_pixels(), 48, generator), augment(draw_pixels(), 48, generator)

    assert first.shape == (4, 1, INPUT_SIZE_PX, INPUT_SIZE_PX)
    assert torch.equal(first, augment(draw_pixels(), 48, seeded(3)))
    assert not torch.equal(first, second)


def test_views_are_made_in_32_bits() -> None:
    """Whatever the network's precision: CUDA rejects mixed types, and a CPU would lose detail in 16 bits."""
    pixels = draw_pixels(64)
    plain = augment(pixels, 48, seeded(3))
    with torch.autocast("cpu", torch.bfloat16):
        views = augment(pixels, 48, seeded(3))

    assert views.dtype == torch.float32
    assert torch.equal(views, plain)


def test_views_stay_similar_to_their_images() -> None:
    """A view differs from its image, but correlates with it or with its mirror image."""
    down = torch.linspace(0, 255, 64)[:, None].expand(64, 64)
    pixels = down.to(torch.uint8)[None].repeat(64, 1, 1)

    views, plain = augment(pixels, 48, seeded(0)), preprocess(pixels)
    correlation = torch.stack(
        [torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] for a, b in zip(views, plain, strict=True)]
    )

    assert correlation.median() > 0.7
    assert (correlation > 0.3).float().mean() > 0.9
    assert correlation.max() < 1


def test_views_without_strength_are_only_mirrored() -> None:
    """Besides, every view gets another gain and offset, which leave the correlation at 1."""
    pixels = draw_pixels(64)

    views, plain = augment(pixels, 48, seeded(0), strength=0).flatten(1), preprocess(pixels)
    mirrored, plain = plain.flip(3).flatten(1), plain.flatten(1)
    rows = [torch.corrcoef(torch.stack(rows))[0, 1:] for rows in zip(views, plain, mirrored, strict=True)]

    assert torch.stack(rows).max(dim=1).values.min() > 0.999


def test_views_differ_more_with_more_strength() -> None:
    """Half of the strength leaves views closer to their images than all of it does."""
    pixels = torch.linspace(0, 255, 64)[:, None].expand(64, 64).to(torch.uint8)[None].repeat(256, 1, 1)
    plain = preprocess(pixels).flatten(1)

    def likeness(strength: float) -> float:
        views = augment(pixels, 48, seeded(0), strength).flatten(1)
        pairs = zip(views, plain, strict=True)
        return torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs]).mean().item()

    assert likeness(0.5) > likeness(1) + 0.02


@pytest.mark.parametrize("strength", [1, 0.5])
def test_few_views_are_turned_or_inverted(strength: float) -> None:
    """At full strength six in a hundred and three in a hundred; all others stay as they are."""
    upright = torch.randn((1, 1, 8, 8), generator=seeded(0)).expand(20_000, 1, 8, 8)
    kinds = {
        "as it was": upright[0],
        "on its side": torch.rot90(upright[0], 1, (1, 2)),
        "on its other side": torch.rot90(upright[0], 3, (1, 2)),
        "upside down": torch.rot90(upright[0], 2, (1, 2)),
        "inverted": -upright[0],
    }

    views = randomize_orientation(upright, seeded(1), strength)
    found = {name: (views == view).all(dim=3).all(dim=2).float().mean().item() for name, view in kinds.items()}

    kept = 1 - 0.03 * strength
    assert found == pytest.approx(
        {
            "as it was": (1 - 0.06 * strength) * kept,
            "on its side": 0.01 * strength * kept,
            "on its other side": 0.01 * strength * kept,
            "upside down": 0.04 * strength * kept,
            "inverted": (1 - 0.06 * strength) * 0.03 * strength,
        },
        abs=0.005,
    )
