from __future__ import annotations

import pytest
from pydantic import ValidationError

from emotion_assets.core.classes import EMOTIONS
from emotion_service.schemas import UNKNOWN_EMOTION, Feedback, Prediction


def test_an_emotion_may_have_spaces_and_capitals() -> None:
    assert Feedback(prediction_id="x", emotion=" Sad ").emotion == "sad"


def test_an_unknown_emotion_is_recognizable() -> None:
    """Its error differs from those of malformed JSON, because its status does."""
    with pytest.raises(ValidationError) as caught:
        Feedback(prediction_id="x", emotion="bored")
    assert [error["type"] for error in caught.value.errors()] == [UNKNOWN_EMOTION]


def test_the_schema_lists_the_emotions() -> None:
    for model in (Feedback, Prediction):
        assert model.model_json_schema()["properties"]["emotion"]["enum"] == list(EMOTIONS)
