"""The five emotions, their one order, and the folder names that stand for them."""

from __future__ import annotations

from typing import Final

EMOTIONS: Final = ("angry", "fear", "happy", "sad", "surprise")
"""The classes in the order of every array, table and chart. A class index is a position in this tuple."""

_ALIASES: Final = {
    "anger": "angry",
    "fearful": "fear",
    "afraid": "fear",
    "happiness": "happy",
    "sadness": "sad",
    "surprised": "surprise",
    "suprise": "surprise",
    "suprised": "surprise",
}


def emotion_from_folder(name: str) -> str | None:
    """Return the emotion that a folder name stands for, or None for any other folder.

    Case and surrounding spaces do not matter; the spellings found in public data sets
    (`Suprise`, `Anger`, `Happiness`, …) are accepted.
    """
    word = name.strip().casefold()
    if word in EMOTIONS:
        return word
    return _ALIASES.get(word)
