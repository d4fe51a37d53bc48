from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from emotion_assets.resources import PipelineSettings


@pytest.fixture
def local(drawn_root: Path, tmp_path: Path) -> PipelineSettings:
    """A laptop with labelled images and nothing else."""
    shutil.copytree(drawn_root / "raw", tmp_path / "laptop" / "raw")
    return PipelineSettings(data_dir=tmp_path / "laptop")


@pytest.fixture
def hosts(
    local: PipelineSettings, s3_root: str, tmp_path: Path, upload: Callable[[Path], None]
) -> list[PipelineSettings]:
    """Two hosts with one data root, which has the same images."""
    upload(local.data_dir)
    return [PipelineSettings(data_dir=s3_root, cache_dir=tmp_path / f"host{number}") for number in range(2)]
