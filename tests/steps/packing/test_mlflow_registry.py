from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.steps.packing.mlflow_registry import register_champion
from tests.bundles import change_manifest


def test_each_champion_is_registered_once(bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The alias follows the champion, also back to an earlier one; scores and files are there."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    later = tmp_path / "20991231-235959-00000000"
    shutil.copytree(bundle_dir, later)
    change_manifest(later, version=later.name)
    numbers = [register_champion(each, "emotions") for each in (bundle_dir, later, bundle_dir)]

    client = MlflowClient()
    champion = client.get_model_version_by_alias("emotions", "champion")
    run = client.get_run(champion.run_id)
    assert numbers == ["1", "2", "1"]
    assert champion.tags["bundle"] == bundle_dir.name
    assert "val/accuracy" in run.data.metrics
    assert "bundle/model.onnx" in {file.path for file in client.list_artifacts(run.info.run_id, "bundle")}


def test_without_mlflow_the_remedy_is_named(bundle_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for the trackers."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(UnusableDataError, match=r"pip install '\.\[mlflow\]'"):
        register_champion(bundle_dir, "emotions")
