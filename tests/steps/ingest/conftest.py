"""A small labelled folder for the tests of the ingest."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def raw(tmp_path: Path, faces: list[tuple[str, bytes]]) -> Path:
    """The folder `raw/` of a data root, with three faces of each emotion."""
    for number, (emotion, content) in enumerate(faces):
        path = tmp_path / "raw" / emotion.capitalize() / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "raw"
