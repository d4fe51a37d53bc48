"""A clock that was set back, by libfaketime."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from emotion_assets.core.bundle import read_manifest
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.registry.registry import Registry
from tests.faults.helpers import TRAINING

LIBRARY = next(Path("/usr/lib").glob("**/libfaketime.so.1"), None)
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="needs libfaketime: apt-get install faketime")


def test_a_model_of_yesterday_is_still_the_newest(split: Path, bundle_dir: Path, tmp_path: Path) -> None:
    """It is the candidate, though its manifest has the time of the wrong clock."""
    paths = DataPaths(tmp_path / "root")
    shutil.copytree(split, paths.root)
    shutil.copytree(bundle_dir, paths.models / bundle_dir.name)
    # Monotonic clocks go on: setting the time does not move them.
    late = {"LD_PRELOAD": str(LIBRARY), "FAKETIME": "-2d", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}

    subprocess.run([sys.executable, "-W", "ignore", "-c", TRAINING, str(paths.root)], env=os.environ | late, check=True)

    registry = Registry(paths.models)
    old, new = (read_manifest(paths.models / version) for version in registry.versions())
    assert old.version == bundle_dir.name
    assert registry.candidate() == new.version
    assert new.created_at < old.created_at
