from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from emotion_assets.resources import PipelineSettings
from tests.assets.helpers import add, fit, materialize


@pytest.fixture(scope="session")
def good_dir(drawn_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a model that learned the drawn faces."""
    return fit(drawn_root / "splits", tmp_path_factory.mktemp("good"), epochs=24)


@pytest.fixture
def settings(tmp_path: Path) -> PipelineSettings:
    """Settings of an empty data root."""
    return PipelineSettings(data_dir=tmp_path)


@pytest.fixture
def site(settings: PipelineSettings, drawn_root: Path, good_dir: Path) -> PipelineSettings:
    """A data root whose champion is the good model, packed."""
    shutil.copytree(drawn_root / "splits", settings.paths.splits)
    shutil.copytree(drawn_root / "catalogue", settings.paths.catalogue)
    add(settings, good_dir)
    assert materialize(settings).success
    return settings
