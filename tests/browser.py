"""The browser of the tests: Debian's Chromium, which `.ci/run` installs."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium, which .ci/run installs")


def launch(playwright: Any, *arguments: str) -> Any:
    """Start Chromium without its sandbox, which root may not use, and with patience for busy cores."""
    from playwright.sync_api import expect

    expect.set_options(timeout=20_000)
    return playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", *arguments])
