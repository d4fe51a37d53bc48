"""The heap is trimmed after large images, and only then."""

from __future__ import annotations

import time

import pytest

from emotion_service import heap
from emotion_service.heap import HeapTrimmer


def test_memory_is_given_back_once_for_many_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several notes within a few seconds make one trim; without a note there is none."""
    monkeypatch.setattr(heap, "_SECONDS", 0.05)
    keeper = HeapTrimmer()
    trims: list[int] = []
    keeper._trim = trims.append
    time.sleep(0.2)
    assert trims == []
    for _ in range(5):
        keeper.note()
    time.sleep(0.3)
    keeper.close()

    assert trims == [0]


def test_without_glibc_nothing_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere than on Linux with glibc the keeper only waits."""

    def reject(_: str) -> None:
        raise OSError

    monkeypatch.setattr(heap.ctypes, "CDLL", reject)
    keeper = HeapTrimmer()
    keeper.note()
    keeper.close()

    assert keeper._trim is None
