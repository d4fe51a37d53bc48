"""Each service counts in a directory of its own."""

from __future__ import annotations

import os
from pathlib import Path

from emotion_service.metrics import _own_directory


def test_services_with_the_same_home_count_apart(tmp_path: Path) -> None:
    """The server gives all of them one directory, and empties it; what ended services left is removed."""
    given = tmp_path / "prometheus_multiproc_dir"
    ended, reused = tmp_path / f"{given.name}-999999999-1", tmp_path / f"{given.name}-{os.getppid()}-1"
    for folder in (given, ended, reused):
        folder.mkdir()

    own = Path(_own_directory(str(given)))
    (own / "counter_1.db").touch()

    assert own != given
    assert own.name.startswith(f"{given.name}-{os.getppid()}-")
    assert not ended.exists()
    assert not reused.exists()
    assert Path(_own_directory(str(given))) == own
    assert (own / "counter_1.db").exists()
