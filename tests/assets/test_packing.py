from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from emotion_assets.resources import PipelineSettings
from emotion_assets.steps.packing import bento
from emotion_assets.steps.registry.registry import Registry
from tests.assets.helpers import materialize


def test_the_champion_is_packed_and_checked(site: PipelineSettings) -> None:
    result = materialize(site, "emotion_bento")

    (materialization,) = result.asset_materializations_for_node("emotion_bento")
    assert {check.check_name: check.passed for check in result.get_asset_check_evaluations()} == {
        "packed_model_passes_self_test": True,
        "bento_is_lean": True,
    }
    assert not materialization.metadata["was_built"].value
    assert str(materialization.metadata["tag"].value).startswith("emotion_service:")


def test_the_champion_is_registered_in_mlflow(
    site: PipelineSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a name is set."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)

    assert materialize(site.model_copy(update={"mlflow_model": "emotions"}), "emotion_bento").success

    registered = MlflowClient().get_model_version_by_alias("emotions", "champion")
    assert registered.tags["bundle"] == Registry(site.paths.models).champion()


def test_nobody_rolls_back_while_the_champion_is_packed(
    site: PipelineSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bento that is built last is the latest, so it must be that of the champion."""
    build, was_free = bento.build_bento, []

    def build_and_look(*given: Any) -> bento.PackedBento:
        with (site.paths.models / ".registry.lock").open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                was_free.append(True)
            except BlockingIOError:
                was_free.append(False)
        return build(*given)

    monkeypatch.setattr(bento, "build_bento", build_and_look)

    assert materialize(site, "emotion_bento").success
    assert was_free == [False]
