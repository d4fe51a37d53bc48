from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.features import probability_columns
from emotion_assets.steps.feedback.sampling import NUM_REQUESTED, most_informative_images, sample_for_labelling
from tests.steps.drift.helpers import calibrated_window


@pytest.fixture
def window() -> pd.DataFrame:
    """Predictions as they are logged."""
    table = calibrated_window(300, seed=1)
    return table.assign(prediction_id=[f"id{number}" for number in range(len(table))])


def test_half_of_a_request_is_random_and_half_is_informative(window: pd.DataFrame) -> None:
    """Outliers come before uncertain predictions, and the least confident first; no prediction is asked for twice."""
    is_outlier = np.arange(300) % 50 == 0

    request = sample_for_labelling(window, is_outlier, {})

    assert len(request) == request["prediction_id"].nunique() == NUM_REQUESTED
    reasons = request["reason"].tolist()
    assert reasons == sorted(reasons, key=["random", "outlier", "uncertain"].index)
    assert reasons.count("random") == NUM_REQUESTED // 2
    uncertain = request[request["reason"] == "uncertain"]
    assert uncertain["confidence"].is_monotonic_increasing
    assert set(window["prediction_id"][is_outlier]) <= set(request["prediction_id"])
    by_id = window.set_index("prediction_id").loc[request["prediction_id"]]
    assert request["emotion"].tolist() == by_id["emotion"].tolist()
    assert np.allclose(request["confidence"], by_id[probability_columns(EMOTIONS)].max(axis=1), atol=1e-4)


def test_the_same_window_asks_for_the_same_images(window: pd.DataFrame) -> None:
    """A small window asks for all of its images once."""
    is_outlier = np.zeros(300, dtype=bool)

    assert sample_for_labelling(window, is_outlier, {}).equals(sample_for_labelling(window, is_outlier, {}))
    assert len(sample_for_labelling(window.head(60), is_outlier[:60], {})) == 60


def test_stored_images_are_offered(window: pd.DataFrame) -> None:
    """A request names the stored file of a prediction; of the informative ones only stored images count."""
    stored = {name: Path(f"{name}.webp") for name in ("id3", "id70", "id200")}
    is_outlier = np.arange(300) == 200

    request = sample_for_labelling(window.head(100), is_outlier[:100], stored)
    images = most_informative_images(window, is_outlier, stored)

    assert {row.prediction_id: row.image for row in request.itertuples() if row.image} == {
        name: str(stored[name]) for name in ("id3", "id70")
    }
    confidence = window[probability_columns(EMOTIONS)].max(axis=1)
    rest = sorted(("id3", "id70"), key=lambda name: confidence[int(name[2:])])
    assert images == [stored[name] for name in ("id200", *rest)]


def test_the_random_half_comes_from_the_whole_window(window: pd.DataFrame) -> None:
    """The first predictions of a window would tell of its first hour."""
    request = sample_for_labelling(window, np.zeros(300, dtype=bool), {})

    numbers = request.loc[request["reason"] == "random", "prediction_id"].str[2:].astype(int)
    assert all(((numbers >= start) & (numbers < start + 100)).sum() >= 8 for start in (0, 100, 200))
