from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.features import feature_columns
from emotion_assets.core.images import Pixels
from emotion_assets.steps.reference.corruptions import (
    COMBINATIONS,
    CORRUPTIONS,
    MIN_FACES,
    UNCHANGED,
    corruption_profile,
)
from emotion_assets.steps.reference.reference import TRUE_EMOTION_COLUMN, build_reference
from emotion_assets.steps.splits.splits import Split, read_split


def predict(pixels: Pixels) -> npt.NDArray[np.float32]:
    """Stand for a network that compares the brightness of five horizontal bands."""
    bands = pixels[:, 2:62].reshape(len(pixels), 5, 12, 64).mean(axis=(2, 3)).astype(np.float32)
    scores = np.exp((bands - bands.mean(axis=1, keepdims=True)) / np.float32(20))
    return np.asarray(scores / scores.sum(axis=1, keepdims=True), dtype=np.float32)


@pytest.fixture(scope="module")
def val(drawn_root: Path) -> Split:
    """Enough faces for a profile; the drawn val split is smaller than that."""
    train = read_split(drawn_root / "splits", "train")
    return Split(train.pixels[::2], train.class_indices[::2], train.content_hashes[::2])


@pytest.fixture(scope="module")
def profile(val: Split) -> dict[tuple[str, float, str], pd.DataFrame]:
    """The tables of that profile by corruption and strength."""
    table = corruption_profile(val, predict)
    assert table is not None
    assert list(table.columns) == [
        *feature_columns(EMOTIONS),
        TRUE_EMOTION_COLUMN,
        "corruption",
        "strength",
        "part",
        "val_index",
    ]
    return dict(list(table.groupby(["corruption", "strength", "part"], sort=False)))


def test_every_corruption_has_the_same_faces(val: Split, profile: dict[tuple[str, float, str], pd.DataFrame]) -> None:
    """One row per face and corruption; the true emotion stays, and `unchanged` is the face itself."""
    unchanged = profile[UNCHANGED, 0.0, ""]

    keys = [*((*key, "") for key in CORRUPTIONS), *COMBINATIONS]
    assert list(profile) == [(name, float(strength), part) for name, strength, part in keys]
    for table in profile.values():
        for column in (TRUE_EMOTION_COLUMN, "val_index"):
            assert table[column].tolist() == unchanged[column].tolist()
    original = build_reference(val, predict(val.pixels)).iloc[unchanged["val_index"].to_numpy()]
    assert unchanged[TRUE_EMOTION_COLUMN].tolist() == original[TRUE_EMOTION_COLUMN].tolist()
    assert np.allclose(unchanged["brightness"], original["brightness"], atol=0.01)


def test_strengths_mean_what_they_say(profile: dict[tuple[str, float, str], pd.DataFrame]) -> None:
    """Half the light is half as bright, and an inverted face has the complement of its brightness."""
    brightness = {key: table["brightness"].to_numpy() for key, table in profile.items()}

    clean = brightness[UNCHANGED, 0.0, ""]
    assert brightness["darker", 0.5, ""] == pytest.approx(clean / 2, abs=0.01)
    assert brightness["inverted", 1.0, ""] == pytest.approx(1 - clean, abs=0.01)
    assert brightness["darker", 0.5, "inverted"] == pytest.approx(1 - clean / 2, abs=0.01)


def test_borders_are_what_they_are_called(profile: dict[tuple[str, float, str], pd.DataFrame]) -> None:
    """A shift by a quarter moves a white border in, a black one, or copies of the outermost pixels."""
    brightness, clipped = (
        {key[0]: table[column].mean() for key, table in profile.items() if key[1:] == (0.28, "")}
        for column in ("brightness", "clipped_fraction")
    )
    black, white, stretched = (
        f"shifted sideways, with a {border} border" for border in ("black", "white", "stretched")
    )

    assert brightness[black] < brightness[stretched] < brightness[white]
    assert clipped[black] > clipped[stretched] + 0.2


def test_few_faces_have_no_profile(val: Split) -> None:
    """A cost that is measured on a handful of faces would be a guess."""
    few = Split(val.pixels[: MIN_FACES - 1], val.class_indices[: MIN_FACES - 1], val.content_hashes[: MIN_FACES - 1])

    assert corruption_profile(few, predict) is None
