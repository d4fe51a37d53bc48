from __future__ import annotations

import numpy as np
import pytest

from emotion_assets.core.image_stats import STATISTICS, image_statistics


def noise(seed: int = 0, count: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(60, 190, (count, 64, 64)).astype(np.uint8)


def smooth() -> np.ndarray:
    return np.tile(np.linspace(40, 200, 64), (1, 64, 1)).astype(np.uint8)


def test_statistics_have_all_names_and_one_value_an_image() -> None:
    """Every statistic is a finite float32 for each image."""
    values = image_statistics(noise(count=3))

    assert tuple(values) == STATISTICS
    for name, array in values.items():
        assert array.shape == (3,), name
        assert array.dtype == np.float32, name
        assert np.isfinite(array).all(), name


@pytest.mark.parametrize("value", [0, 128, 255])
def test_statistics_of_blank_images_are_finite(value: int) -> None:
    """An image without structure has finite statistics."""
    values = image_statistics(np.full((1, 64, 64), value, dtype=np.uint8))

    assert all(np.isfinite(array).all() for array in values.values())
    assert values["brightness"][0] == pytest.approx(value / 255)
    assert values["contrast"][0] == pytest.approx(0, abs=1e-6)


def test_statistics_of_one_image_do_not_depend_on_its_batch() -> None:
    """Batched or alone, an image has the same numbers: training and serving agree."""
    images = noise(count=5)
    together = image_statistics(images)

    for index in range(5):
        alone = image_statistics(images[index : index + 1])
        for name in STATISTICS:
            assert alone[name][0] == pytest.approx(together[name][index], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "change", "direction"),
    [
        ("brightness", lambda p: p * 0.5, -1),
        ("contrast", lambda p: (p - 128) * 0.5 + 128, -1),
        ("sharpness", lambda p: p + np.random.default_rng(1).normal(0, 15, p.shape), 1),
        ("noise", lambda p: p + np.random.default_rng(1).normal(0, 15, p.shape), 1),
        ("clipped_fraction", lambda p: p * 3, 1),
        ("top_minus_bottom", lambda p: p * np.linspace(1, 0.3, 64)[None, :, None], 1),
        ("mirror_symmetry", lambda p: (p + p[:, :, ::-1]) / 2 + np.abs(np.linspace(-9, 9, 64)), 1),
        ("horizontal_gradient_fraction", lambda p: p.transpose(0, 2, 1), -1),
        ("eyes_minus_cheeks", lambda p: p - 40 * (np.abs(np.arange(64) - 24) < 6)[None, :, None], -1),
    ],
)
def test_statistics_move_with_what_they_measure(name: str, change: object, direction: int) -> None:
    """Each statistic moves in the right direction when the image is changed."""
    before = smooth()
    after = np.clip(change(before.astype(float)), 0, 255).astype(np.uint8)  # type: ignore[operator]

    moved = image_statistics(after)[name][0] - image_statistics(before)[name][0]

    assert moved * direction > 0


def test_statistics_follow_their_formulas() -> None:
    """They equal plain formulas for an image with edges of every kind."""
    rng = np.random.default_rng(4)
    image = np.clip(rng.normal(128, 90, (64, 64)), 0, 255).astype(np.uint8)
    gray = image / 255
    across, down = (gray[1:-1, 2:] - gray[1:-1, :-2]) / 2, (gray[2:, 1:-1] - gray[:-2, 1:-1]) / 2
    gradient = np.hypot(across, down)
    laplacian = gray[1:-1, 2:] + gray[1:-1, :-2] + gray[2:, 1:-1] + gray[:-2, 1:-1] - 4 * gray[1:-1, 1:-1]
    second = np.diff(np.diff(gray, 2, axis=0), 2, axis=1)
    fractions = np.bincount((image // 8).ravel(), minlength=32) / image.size
    center = gray[16:48, 16:48].mean()
    expected = {
        "brightness": gray.mean(),
        "contrast": gray.std(),
        "sharpness": gradient.mean(),
        "detail": np.log(laplacian.var()),
        "entropy": -(fractions[fractions > 0] * np.log2(fractions[fractions > 0])).sum(),
        "edge_fraction": (gradient > 0.1).mean(),
        "noise": np.sqrt(np.pi / 2) / 6 * np.abs(second).mean(),
        "clipped_fraction": np.isin(image, (0, 255)).mean(),
        "top_minus_bottom": gray[:32].mean() - gray[32:].mean(),
        "mirror_symmetry": np.corrcoef(gray.ravel(), gray[:, ::-1].ravel())[0, 1],
        "center_minus_border": center - (gray.mean() - center / 4) / 0.75,
        "horizontal_gradient_fraction": (across**2).sum() / (across**2 + down**2).sum(),
        "eyes_minus_cheeks": (gray[18:30, 10:54].mean() - gray[32:42, 10:54].mean()) / gray.std(),
    }

    found = image_statistics(image[None])

    assert tuple(found) == tuple(expected)
    for name, value in expected.items():
        # A gradient of just 0.1 may fall to either side, so one pixel of 3,844.
        assert found[name][0] == pytest.approx(value, abs=3e-4), name
