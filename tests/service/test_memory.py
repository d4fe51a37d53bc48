"""As many workers, large images and uploads as the allowed memory holds."""

from __future__ import annotations

import pytest

from emotion_service import memory
from emotion_service.memory import MAX_LARGE_AT_ONCE, default_workers, large_images_that_fit, upload_bytes_that_fit
from emotion_service.settings import Settings


@pytest.mark.parametrize(
    ("num_cpus", "megabytes", "workers"), [(1, 16_000, 1), (4, 16_000, 4), (4, 512, 1), (4, 1_024, 2), (4, 64, 1)]
)
def test_workers_fit_into_the_memory(
    monkeypatch: pytest.MonkeyPatch, num_cpus: int, megabytes: int, workers: int
) -> None:
    """One for each processor, if the memory suffices; the setting's default and the health check's are the same."""
    monkeypatch.delenv("EMOTION_WORKERS", raising=False)
    monkeypatch.setattr(memory, "count_cpus", lambda: num_cpus)
    monkeypatch.setattr(memory, "memory_bytes", lambda: megabytes * 2**20)

    assert default_workers() == workers
    assert Settings.load().workers == workers


def test_little_memory_holds_fewer_large_images(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so; with enough memory nothing is logged."""
    monkeypatch.setattr(memory, "memory_bytes", lambda: 16_000 * 2**20)
    assert (large_images_that_fit(2), caplog.messages) == (MAX_LARGE_AT_ONCE, [])

    monkeypatch.setattr(memory, "memory_bytes", lambda: 512 * 2**20)
    assert large_images_that_fit(1) == 1
    assert "512 MB of memory are allowed: each of 1 workers handles 1 large images" in caplog.text


@pytest.mark.parametrize(
    ("megabytes", "workers", "expected"), [(16_000, 2, 256), (512, 1, 52), (1_024, 2, 112), (64, 1, 40)]
)
def test_uploads_fit_beside_large_images(
    monkeypatch: pytest.MonkeyPatch, megabytes: int, workers: int, expected: int
) -> None:
    """Unfinished uploads and large images together never exceed the memory; one batch always fits."""
    monkeypatch.setattr(memory, "memory_bytes", lambda: megabytes * 2**20)

    assert upload_bytes_that_fit(workers, large_images_that_fit(workers)) == expected * 2**20
