"""Two hundred kills at random moments of four stages: whatever a kill leaves behind is whole."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from emotion_assets.core.bundle import check_files, complete_versions, read_manifest
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.files import file_sha256
from emotion_assets.core.layout import DataPaths
from emotion_assets.demo.faces import draw_dataset
from emotion_assets.steps.ingest.catalogue import ingest_images
from emotion_assets.steps.ingest.export import TABLE_NAME, read_catalogue
from emotion_assets.steps.splits.splits import make_splits, read_split
from emotion_assets.steps.splits.splits import read_manifest as read_splits_manifest

KILLS = int(os.environ.get("FAULT_KILLS") or 50)
"""Of each stage."""

# Each prints a line once its imports are done, so that kills meet the work. Small batches, so that they meet all of it.
INGEST = """
import sys
from pathlib import Path
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.ingest import catalogue
catalogue.BATCH_FILES = 8
print("ready", flush=True)
catalogue.ingest_images(DataPaths(Path(sys.argv[1])), num_workers=0)
"""
SPLITS = """
import sys
from pathlib import Path
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.splits.splits import make_splits
print("ready", flush=True)
make_splits(DataPaths(Path(sys.argv[1])))
"""
TRAINING = """
import sys
from pathlib import Path
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.training.config import training_config
from emotion_assets.steps.training.run import train_bundle
config = training_config("quick", epochs=2, width=4, batch_size=32, precision="32-true")
print("ready", flush=True)
train_bundle(DataPaths(Path(sys.argv[1])), config, code_version="killed")
"""
PACKING = """
import sys
from pathlib import Path
from emotion_assets.steps.packing.bento import build_bento
print("ready", flush=True)
build_bento(next((Path(sys.argv[1]) / "models").glob("2*")), {})
"""


class Stage:
    """One stage, its data root, and what a reader finds there."""

    def __init__(self, root: Path, code: str, outputs: list[str], check: Callable[[DataPaths], object]) -> None:
        self.paths, self._code, self._outputs, self.check = DataPaths(root), code, outputs, check

    def start(self) -> subprocess.Popen[str]:
        environment = os.environ | {"BENTOML_HOME": str(self.paths.root / "bentoml"), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", self._code, str(self.paths.root)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        return process

    def run(self) -> float:
        """Run to the end; return the seconds that it took."""
        started = time.monotonic()
        process = self.start()
        process.communicate(timeout=300)
        assert process.returncode == 0
        return time.monotonic() - started

    def reset(self) -> None:
        for name in self._outputs:
            shutil.rmtree(self.paths.root / name, ignore_errors=True)

    def kill_and_check(self, seconds: float) -> None:
        """Kill after some seconds; what a reader finds then is absent or whole."""
        process = self.start()
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        self.check(self.paths)


def check_catalogue(paths: DataPaths) -> object:
    if (paths.catalogue / TABLE_NAME).exists():
        return len(read_catalogue(paths.catalogue))
    return None


def check_splits(paths: DataPaths) -> object:
    """Reading verifies all hashes; without a manifest there are no splits."""
    with contextlib.suppress(UnusableDataError):
        manifest = read_splits_manifest(paths.splits)
        for name in ("train", "val", "test"):
            read_split(paths.splits, name)
        return manifest["fingerprint"]
    assert not (paths.splits / "manifest.json").exists()
    return None


def check_bundles(paths: DataPaths) -> object:
    for version in complete_versions(paths.models):
        check_files(paths.models / version, read_manifest(paths.models / version))
    return len(complete_versions(paths.models))


def check_bento(paths: DataPaths) -> object:
    """If `latest` names a bento, it has a model whose files are those of the bundle."""
    home = paths.root / "bentoml"
    latest = home / "bentos" / "emotion_service" / "latest"
    if not latest.exists():
        return None
    version = latest.read_text()
    assert (latest.parent / version / "bento.yaml").exists()
    bundle = next(paths.models.glob("2*"))
    for name, digest in read_manifest(bundle).files.items():
        assert file_sha256(home / "models" / "emotion_cnn" / version / name) == digest
    return version


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn")
    draw_dataset(DataPaths(root), num_per_class=20, seed=3)
    return root


@pytest.fixture(scope="module")
def ingested(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ingested") / "root"
    shutil.copytree(drawn, root)
    ingest_images(DataPaths(root))
    return root


@pytest.fixture(scope="module")
def split(ingested: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("split") / "root"
    shutil.copytree(ingested, root)
    make_splits(DataPaths(root))
    return root


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["ingest", "splits", "training", "packing"])
def test_kills_leave_whole_states(
    drawn: Path, ingested: Path, split: Path, bundle_dir: Path, tmp_path: Path, name: str
) -> None:
    """Half of the kills meet a fresh root, the others what earlier kills left; in the end the stage completes."""
    root = tmp_path / "root"
    shutil.copytree({"ingest": drawn, "splits": ingested}.get(name, split), root)
    if name == "packing":
        shutil.copytree(bundle_dir, root / "models" / bundle_dir.name)
    stage = {
        "ingest": Stage(root, INGEST, ["catalogue"], check_catalogue),
        "splits": Stage(root, SPLITS, ["splits"], check_splits),
        "training": Stage(root, TRAINING, ["models", "reports/training"], check_bundles),
        "packing": Stage(root, PACKING, ["bentoml"], check_bento),
    }[name]
    seconds = stage.run()
    rng = random.Random(name)
    for number in range(KILLS):
        if number % 2 == 0:
            stage.reset()
        stage.kill_and_check(rng.uniform(0, seconds))

    stage.run()
    assert stage.check(stage.paths)
    left_over = [path for path in root.rglob("*.tmp") if "bentoml" not in path.parts]
    assert left_over == []
