from __future__ import annotations

from pathlib import Path

import pytest

from emotion_assets.core.layout import DataPaths
from tests.steps.evaluation.helpers import add_bundle, link_data


@pytest.fixture
def paths(drawn_root: Path, bundle_dir: Path, tmp_path: Path) -> DataPaths:
    """A data root with the drawn faces and one model."""
    add_bundle(tmp_path / "models", bundle_dir, 1)
    return link_data(tmp_path, drawn_root)
