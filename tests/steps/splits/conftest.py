from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def root(drawn_root: Path, tmp_path: Path) -> Path:
    """A copy of the drawn data root that a test may change."""
    return Path(shutil.copytree(drawn_root, tmp_path / "root"))
