"""Kills at random moments of every stage: whatever a kill leaves behind is whole."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from emotion_assets.core.files import file_sha256, files_below
from emotion_assets.core.layout import DataPaths
from emotion_assets.resources import PipelineSettings
from emotion_assets.steps.registry.registry import Registry
from tests.assets.helpers import add
from tests.faults.helpers import (
    EVALUATION,
    INGEST,
    PACKING,
    SPLITS,
    TRAINING,
    Stage,
    check_bento,
    check_bundles,
    check_catalogue,
    check_champion,
    check_splits,
    removing,
)

KILLS = int(os.environ.get("FAULT_KILLS") or 50)
"""Of each stage that writes its first version."""


def kill_often(stage: Stage, num_kills: int, seed: str) -> None:
    """Half of the kills meet a fresh root, the others what earlier kills left; in the end the stage completes."""
    stage.reset()
    seconds = stage.run()
    rng = random.Random(seed)
    for number in range(num_kills):
        if number % 2 == 0:
            stage.reset()
        stage.kill_and_check(rng.uniform(0, seconds))

    stage.run()
    assert stage.check()
    left_over = [path for path in stage.paths.root.rglob("*.tmp") if "bentoml" not in path.parts]
    assert left_over == []


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["ingest", "splits", "training", "packing"])
def test_kills_leave_whole_states(
    drawn: Path, ingested: Path, split: Path, bundle_dir: Path, tmp_path: Path, name: str
) -> None:
    root = tmp_path / "root"
    shutil.copytree({"ingest": drawn, "splits": ingested}.get(name, split), root)
    if name == "packing":
        shutil.copytree(bundle_dir, root / "models" / bundle_dir.name)
    paths = DataPaths(root)
    stage = {
        "ingest": Stage(paths, INGEST, removing("catalogue"), check_catalogue),
        "splits": Stage(paths, SPLITS, removing("splits"), check_splits),
        "training": Stage(paths, TRAINING, removing("models", "reports/training"), check_bundles),
        "packing": Stage(paths, PACKING, removing("bentoml"), check_bento),
    }[name]

    kill_often(stage, KILLS, name)


@pytest.mark.timeout(900)
def test_kills_of_an_evaluation_leave_one_champion(split: Path, bundle_dir: Path, tmp_path: Path) -> None:
    """It is the old model or the new one, and the history says the same."""
    settings = with_champion(split, bundle_dir, tmp_path)
    newer = add(settings, bundle_dir)
    champion_path = settings.paths.models / "champion.json"
    before = champion_path.read_text()

    def reset(paths: DataPaths) -> None:
        champion_path.write_text(before)
        removing("reports/evaluation")(paths)
        (paths.models / newer / "model_card.md").unlink(missing_ok=True)

    kill_often(Stage(settings.paths, EVALUATION, reset, check_champion), KILLS // 3, "evaluation")

    assert {entry["candidate"] for entry in Registry(settings.paths.models).history()} == {newer}


@pytest.mark.timeout(900)
def test_kills_of_a_second_packing_leave_the_first(split: Path, bundle_dir: Path, tmp_path: Path) -> None:
    """The first bento stays as it was, and `latest` names one of the two."""
    settings = with_champion(split, bundle_dir, tmp_path)
    home, saved = settings.data_dir / "bentoml", tmp_path / "saved"
    Stage(settings.paths, PACKING, removing(), check_bento).run()
    newer = add(settings, bundle_dir)
    home.rename(saved)
    first = {path.relative_to(saved): file_sha256(path) for path in files_below(saved) if bundle_dir.name in path.parts}

    def reset(_: DataPaths) -> None:
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(saved, home)

    def check(paths: DataPaths) -> bool:
        latest = check_bento(paths)
        assert latest in {bundle_dir.name, newer}
        assert all(file_sha256(home / path) == digest for path, digest in first.items())
        return latest == newer

    kill_often(Stage(settings.paths, PACKING, reset, check), KILLS // 3, "second packing")

    load = f"import bentoml; bentoml.load('emotion_service:{bundle_dir.name}')"
    environment = os.environ | {"BENTOML_HOME": str(home), "EMOTION_DATA_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-W", "ignore", "-c", load], env=environment, check=True)


def with_champion(split: Path, bundle_dir: Path, folder: Path) -> PipelineSettings:
    """Make a data root with splits and a champion."""
    settings = PipelineSettings(data_dir=folder / "root")
    shutil.copytree(split, settings.data_dir)
    shutil.copytree(bundle_dir, settings.paths.models / bundle_dir.name)
    record = {"schema_version": 1, "version": bundle_dir.name, "history": []}
    (settings.paths.models / "champion.json").write_text(json.dumps(record))
    return settings
