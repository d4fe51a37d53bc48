from __future__ import annotations

import pytest
from pydantic import ValidationError

from emotion_service.schemas import Feedback, Prediction


def test_a_label_is_text() -> None:
    """Which texts are classes depends on the loaded model, so `parse_feedback` checks that."""
    assert Feedback(prediction_id="x", emotion="bored").emotion == "bored"
    with pytest.raises(ValidationError):
        Feedback(prediction_id="x", emotion=3)  # type: ignore[arg-type]


def test_a_probability_is_between_0_and_1() -> None:
    values = {"prediction_id": "x", "emotion": "a", "model_version": "v", "features": {}}

    assert Prediction(**values, probabilities={"a": 1.0}).probabilities == {"a": 1.0}  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        Prediction(**values, probabilities={"a": 1.1})  # type: ignore[arg-type]
