from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.features import feature_columns, image_features
from emotion_assets.steps.reference.reference import build_reference, feature_table, round_features
from emotion_assets.steps.splits.splits import read_split


def test_features_equal_those_that_the_service_logs(drawn_root: Path) -> None:
    """The same statistics up to rounding, and the most probable emotion by name."""
    pixels = read_split(drawn_root / "splits", "val").pixels[:3]
    probabilities = np.eye(5, dtype=np.float32)[[0, 3, 1]]
    table = feature_table(pixels, probabilities, EMOTIONS)

    assert list(table.columns) == feature_columns(EMOTIONS)
    assert list(table["emotion"]) == [EMOTIONS[0], EMOTIONS[3], EMOTIONS[1]]
    for index, image in enumerate(pixels):
        for name, value in image_features(image).items():
            assert table[name][index] == pytest.approx(value, abs=1e-5)


def test_reference_adds_the_true_emotion(drawn_root: Path) -> None:
    """One row per face, in the order of the split."""
    val = read_split(drawn_root / "splits", "val")
    reference = build_reference(val, np.full((len(val.pixels), 5), 0.2, dtype=np.float32))

    assert list(reference["true_emotion"]) == [EMOTIONS[index] for index in val.class_indices]


def test_rounding_keeps_other_columns() -> None:
    """Only statistics are rounded as the log does."""
    table = pd.DataFrame({"brightness": [0.12345678], "p_happy": [0.12345678]})

    assert round_features(table).iloc[0].tolist() == [0.123457, 0.12345678]
