"""Marks every test here: `make test-faults` runs them, the rest of the suite does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from emotion_assets.core.layout import DataPaths
from emotion_assets.demo.faces import draw_dataset
from emotion_assets.steps.ingest.catalogue import ingest_images
from emotion_assets.steps.splits.make import make_splits


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("faults")


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with 100 drawn faces. Do not write to it, nor to the next ones."""
    root = tmp_path_factory.mktemp("faces")
    draw_dataset(DataPaths(root), num_per_class=20, seed=3)
    return root


@pytest.fixture(scope="session")
def ingested(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a catalogue."""
    root = tmp_path_factory.mktemp("ingested") / "root"
    shutil.copytree(drawn, root)
    ingest_images(DataPaths(root))
    return root


@pytest.fixture(scope="session")
def split(ingested: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with splits."""
    root = tmp_path_factory.mktemp("split") / "root"
    shutil.copytree(ingested, root)
    make_splits(DataPaths(root))
    return root
