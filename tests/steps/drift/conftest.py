"""Drawn faces for a corruption profile, and others to compare with it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from emotion_assets.core.images import Pixels
from emotion_assets.steps.reference.corruptions import corruption_profile
from emotion_assets.steps.splits.splits import Split, read_split
from tests.steps.drift.helpers import predict_by_bands


@pytest.fixture(scope="package")
def halves(drawn_root: Path) -> tuple[Split, Pixels]:
    """Half of the drawn faces, four labels in five as `predict_by_bands` predicts, and the pixels of the others."""
    train = read_split(drawn_root / "splits", "train")
    truth = predict_by_bands(train.pixels).argmax(axis=1)
    truth[::5] = (truth[::5] + 1) % 5
    first = slice(0, None, 2)
    return Split(train.pixels[first], truth[first], train.content_hashes[first]), train.pixels[1::2]


@pytest.fixture(scope="package")
def profile(halves: tuple[Split, Pixels]) -> pd.DataFrame:
    """The corruption profile of `predict_by_bands` on the first half."""
    table = corruption_profile(halves[0], predict_by_bands)
    assert table is not None
    return table
