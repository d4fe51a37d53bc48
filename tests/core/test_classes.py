from __future__ import annotations

import pytest

from emotion_assets.core.classes import EMOTIONS, emotion_from_folder


def test_emotions_order() -> None:
    """The order of the classes is part of the contract."""
    assert EMOTIONS == ("angry", "fear", "happy", "sad", "surprise")


@pytest.mark.parametrize(
    ("name", "emotion"),
    [
        ("Angry", "angry"),
        ("ANGER", "angry"),
        ("fearful", "fear"),
        ("Happiness", "happy"),
        ("Sadness", "sad"),
        ("Suprise", "surprise"),
        ("Surprised ", "surprise"),
        ("Neutral", None),
        ("", None),
        ("happy2", None),
    ],
)
def test_emotion_from_folder_accepts_known_spellings(name: str, emotion: str | None) -> None:
    """Case and the spellings of public data sets do not matter; any other folder has no emotion."""
    assert emotion_from_folder(name) == emotion
