from __future__ import annotations

import numpy as np
import pytest

from emotion_assets.steps.training.module import choose_side_px, compute_rate_factor


def test_one_cycle_rises_and_falls() -> None:
    """The factor starts near 0, peaks at 1 after the warm-up and ends at 0."""
    values = [compute_rate_factor(progress, 0.2) for progress in np.linspace(0, 1, 101)]

    assert values[0] < 0.01
    assert max(values) == pytest.approx(1)
    assert np.argmax(values) == 20
    assert values[-1] == pytest.approx(0)


def test_images_grow_during_a_progressive_run() -> None:
    """Small at first, full size for the last fifth."""
    assert [choose_side_px(progress) for progress in (0, 0.49, 0.5, 0.79, 0.8, 1)] == [32, 32, 40, 40, 48, 48]
