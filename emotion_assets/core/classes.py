"""The five emotions, their order, and their folder names."""

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
    """Return the emotion that a folder is named after, or None.

    Case and surrounding spaces do not matter; spellings of public data sets (`Suprise`, `Anger`, …) are accepted.
    """
    word = name.strip().casefold()
    return word if word in EMOTIONS else _ALIASES.get(word)
