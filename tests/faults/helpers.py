"""Stages as programs, each in a process of its own that a test may kill, and what a reader finds in a data root."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from emotion_assets.core.bundle import check_files, complete_versions, read_manifest
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.files import file_sha256
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.ingest.export import TABLE_NAME, read_catalogue
from emotion_assets.steps.registry.registry import Registry
from emotion_assets.steps.splits.splits import read_manifest as read_splits_manifest
from emotion_assets.steps.splits.splits import read_split

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
from emotion_assets.steps.splits.make import make_splits
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
EVALUATION = """
import sys
from pathlib import Path
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.evaluation.candidate import evaluate_candidate
print("ready", flush=True)
evaluate_candidate(DataPaths(Path(sys.argv[1])))
"""
PACKING = """
import sys
from pathlib import Path
from emotion_assets.steps.packing.bento import build_bento
print("ready", flush=True)
build_bento(max((Path(sys.argv[1]) / "models").glob("2*")), {})
"""


class Stage:
    """One stage, its data root, and what a reader finds there."""

    def __init__(
        self, paths: DataPaths, code: str, reset: Callable[[DataPaths], object], check: Callable[[DataPaths], object]
    ) -> None:
        self.paths, self._code, self._reset, self._check = paths, code, reset, check

    def start(self) -> subprocess.Popen[str]:
        """Start it; return once its imports are done."""
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
        """Run to the end; return the seconds that it took after its imports."""
        process = self.start()
        started = time.monotonic()
        process.communicate(timeout=300)
        assert process.returncode == 0
        return time.monotonic() - started

    def reset(self) -> None:
        """Take the root back to where the stage has not run yet."""
        self._reset(self.paths)

    def check(self) -> object:
        """Return what a reader finds; None, 0 or empty if that is nothing. Fail if it is torn."""
        return self._check(self.paths)

    def kill_and_check(self, seconds: float) -> None:
        """Kill after some seconds; what a reader finds then is absent or whole."""
        process = self.start()
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        self.check()


def removing(*names: str) -> Callable[[DataPaths], None]:
    """Make a function that removes these folders of a data root."""

    def remove(paths: DataPaths) -> None:
        for name in names:
            shutil.rmtree(paths.root / name, ignore_errors=True)

    return remove


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


def check_champion(paths: DataPaths) -> object:
    """The champion is the old model, or the new one with its whole report; return whether it is the new one."""
    registry = Registry(paths.models)
    old, new = registry.versions()
    champion = registry.champion()
    assert champion in {old, new}
    assert (champion == new) == any(entry.get("candidate") == new for entry in registry.history())
    if champion == new:
        assert {path.suffix for path in paths.evaluation_report(new).iterdir()} >= {".html", ".json"}
        assert (paths.models / new / "model_card.md").read_text().strip()
    return champion == new


def check_bento(paths: DataPaths) -> object:
    """If `latest` names a bento, it has a model whose files are those of the bundle; return its version."""
    home = paths.root / "bentoml"
    latest = home / "bentos" / "emotion_service" / "latest"
    if not latest.exists():
        return None
    version = latest.read_text()
    assert (latest.parent / version / "bento.yaml").exists()
    for name, digest in read_manifest(paths.models / version).files.items():
        assert file_sha256(home / "models" / "emotion_cnn" / version / name) == digest
    return version
