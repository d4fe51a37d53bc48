from __future__ import annotations

import logging
from collections.abc import Callable

import pytest


@pytest.fixture
def log_lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The lines that the training logged so far in this test; reading them clears them."""
    caplog.set_level(logging.INFO, logger="emotion_assets")

    def read() -> list[str]:
        lines = [record.getMessage() for record in caplog.records if record.name.startswith("emotion_assets")]
        caplog.clear()
        return lines

    return read
