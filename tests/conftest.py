"""What the tests share: drawn faces, a small data root, the bundle of a barely trained network."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

# Tiny networks gain nothing from a second thread, which would spin.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["BENTOML_DO_NOT_TRACK"] = "True"
os.environ["DAGSTER_DISABLE_TELEMETRY"] = "yes"
# BentoML reads its home when it is imported; the tests never touch yours.
_bentoml_home = tempfile.TemporaryDirectory(prefix="bentoml-")
os.environ["BENTOML_HOME"] = _bentoml_home.name

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.layout import DataPaths
from emotion_assets.demo.faces import draw_dataset, draw_face
from emotion_assets.steps.ingest.catalogue import ingest_images
from emotion_assets.steps.splits.make import make_splits
from tests.object_storage import s3_root, s3_server, upload  # noqa: F401 -- fixtures
from tests.ray_nodes import nodes  # noqa: F401 -- a fixture

NUM_PER_CLASS = 40


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave what needs object storage or Ray to `make test-cluster`."""
    for item in items:
        if isinstance(item, pytest.Function) and {"s3_root", "nodes"} & set(item.fixturenames):
            item.add_marker("cluster")


@pytest.fixture(scope="session")
def faces() -> list[tuple[str, bytes]]:
    """Three drawn faces of each class, as (emotion, JPEG bytes)."""
    rng = np.random.default_rng(7)
    return [(emotion, draw_face(emotion, rng)) for emotion in EMOTIONS for _ in range(3)]


@pytest.fixture(scope="session")
def face(faces: list[tuple[str, bytes]]) -> bytes:
    """The bytes of one drawn face."""
    return faces[0][1]


@pytest.fixture(scope="session")
def drawn_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with 200 drawn faces, catalogue and splits. Do not write to it."""
    root = tmp_path_factory.mktemp("drawn")
    paths = DataPaths(root)
    draw_dataset(paths, num_per_class=NUM_PER_CLASS, seed=1)
    ingest_images(paths)
    make_splits(paths)
    return root


@pytest.fixture(scope="session")
def bundle_dir(drawn_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a small network that was trained for one epoch. Do not write to it."""
    from emotion_assets.steps.training.config import training_config
    from emotion_assets.steps.training.run import train_bundle

    paths = DataPaths(tmp_path_factory.mktemp("models"))
    paths.splits.symlink_to(drawn_root / "splits")
    # In float32, so that predictions equal torch's to the last digits.
    config = training_config("quick", epochs=1, width=8, batch_size=32, quantize_int8=False)
    return train_bundle(paths, config, code_version="test")
