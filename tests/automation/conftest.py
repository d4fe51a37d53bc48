from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from emotion_assets.resources import PipelineSettings


@pytest.fixture
def settings(tmp_path: Path) -> PipelineSettings:
    """Settings of an empty data root whose folder counts as quiet at once."""
    return PipelineSettings(data_dir=tmp_path, quiet_seconds=0)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral
