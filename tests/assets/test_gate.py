"""The two locks through Dagster itself: worse candidates are rejected, and nothing slips past by another door."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bentoml
import dagster as dg
import numpy as np
import pytest

from emotion_assets.assets.evaluation import candidate_is_not_worse, evaluation_report
from emotion_assets.assets.packing import bento_is_lean, emotion_bento, packed_model_passes_self_test
from emotion_assets.resources import DataPaths
from emotion_assets.steps.splits.splits import Split, read_manifest, read_split, write_splits
from emotion_assets.steps.training.run import train_bundle

ASSETS = [evaluation_report, emotion_bento]
CHECKS = [candidate_is_not_worse, packed_model_passes_self_test, bento_is_lean]
SURPRISE = 4


@pytest.fixture(scope="module")
def good_dir(drawn_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that learnt the drawn faces."""
    return fit(drawn_root / "splits", tmp_path_factory.mktemp("good"), epochs=16)


def fit(splits_dir: Path, models_dir: Path, *, epochs: int, seed: int = 0) -> Path:
    overrides = {"epochs": epochs, "width": 12, "batch_size": 16, "seed": seed}
    return train_bundle(
        splits_dir, models_dir, models_dir / ".work", preset="quick", overrides=overrides, code_version="test"
    )


@pytest.fixture
def places(drawn_root: Path, good_dir: Path, tmp_path: Path) -> DataPaths:
    """A site whose champion is the good model."""
    site = DataPaths(data_dir=str(tmp_path), reports_url="http://localhost:3002")
    shutil.copytree(drawn_root / "splits", site.splits_dir)
    add(site, good_dir)
    assert materialize(site).success
    return site


def add(places: DataPaths, bundle_dir: Path) -> str:
    """Copy a bundle so that it is the newest."""
    number = len(places.registry.versions()) + 1
    target = places.models_dir / f"2099010{number}-000000-{bundle_dir.name[-8:]}"
    shutil.copytree(bundle_dir, target)
    manifest = json.loads((target / "manifest.json").read_text()) | {"version": target.name}
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target.name


def materialize(places: DataPaths, *keys: str, force_reason: str | None = None) -> dg.ExecuteInProcessResult:
    selection = dg.AssetSelection.assets(*keys) if keys else dg.AssetSelection.all()
    config = {"ops": {"evaluation_report": {"config": {"force_reason": force_reason}}}} if force_reason else None
    return dg.materialize(
        [*ASSETS, *CHECKS],
        resources={"places": places},
        selection=selection,
        run_config=config,
        raise_on_error=False,
    )


def changed(places: DataPaths, change: Callable[[Split], Split]) -> Path:
    """Write the splits with another train split, for a candidate that learns something wrong."""
    target = places.root / "changed"
    splits = {name: read_split(places.splits_dir, name) for name in ("train", "val")}
    splits["train"] = change(splits["train"])
    write_splits(target, "0" + read_manifest(places.splits_dir)["fingerprint"][1:], splits)
    return target


def without_surprise(split: Split) -> Split:
    kept = np.flatnonzero(split.class_indices != SURPRISE)
    return Split(split.pixels[kept], split.class_indices[kept], tuple(split.content_hashes[i] for i in kept))


def shuffled(split: Split) -> Split:
    rng = np.random.default_rng(0)
    return Split(split.pixels, rng.permutation(split.class_indices), split.content_hashes)


@pytest.mark.parametrize("kind", ["one epoch", "shuffled labels", "a class is missing"])
def test_a_worse_candidate_is_rejected_everywhere(places: DataPaths, kind: str) -> None:
    """The run fails at the gate, the reason stands in JSON and UI, the champion stays, and no bento is built."""
    champion = places.registry.champion()
    models = places.root / "candidate"
    if kind == "one epoch":
        candidate = add(places, fit(places.splits_dir, models, epochs=1))
    else:
        change = shuffled if kind == "shuffled labels" else without_surprise
        candidate = add(places, fit(changed(places, change), models, epochs=16))

    result = materialize(places)
    alone = materialize(places, "emotion_bento")

    (check,) = (c for c in result.get_asset_check_evaluations() if c.check_name == "candidate_is_not_worse")
    record = json.loads((places.reports_dir / "evaluation" / candidate / "scores.json").read_text())
    metadata = result.asset_materializations_for_node("evaluation_report")[0].metadata
    assert not result.success
    assert not check.passed
    assert not record["gate"]["is_accepted"]
    assert record["gate"]["reasons"][0] in str(metadata["reasons"].value)
    assert record["gate"]["reasons"][0] in str(check.metadata["reasons"].value)
    assert not result.asset_materializations_for_node("emotion_bento")
    assert places.registry.champion() == champion
    assert alone.success
    assert bentoml.bentos.get("emotion_service:latest").tag.version == champion
    assert places.registry.history()[-1]["candidate"] == candidate
    if kind == "a class is missing":
        assert any("surprise" in reason for reason in record["gate"]["reasons"])


def test_an_equal_candidate_passes_and_is_packed(places: DataPaths, good_dir: Path) -> None:
    """The same answers again are not worse: the newer model takes over."""
    candidate = add(places, good_dir)

    result = materialize(places)

    assert result.success
    assert places.registry.champion() == candidate
    assert bentoml.bentos.get("emotion_service:latest").tag.version == candidate


def test_a_person_may_force_a_candidate(places: DataPaths) -> None:
    """With a reason the rejected candidate is accepted and packed; what the gate said stays beside the reason."""
    candidate = add(places, fit(places.splits_dir, places.root / "candidate", epochs=1))

    result = materialize(places, force_reason="a demonstration")

    entry = places.registry.history()[-1]
    assert result.success
    assert places.registry.champion() == candidate
    assert bentoml.bentos.get("emotion_service:latest").tag.version == candidate
    assert entry["force_reason"] == "a demonstration"
    assert "Worse than" in entry["reasons"][0] or "fell" in entry["reasons"][0] or "below" in entry["reasons"][0]


def test_the_gate_speaks_of_the_model_that_was_judged(places: DataPaths, good_dir: Path) -> None:
    """A model that another run has trained meanwhile, and nobody has judged, is none of its business."""
    judged = add(places, good_dir)
    assert materialize(places, "evaluation_report").success
    add(places, good_dir)
    instance = dg.DagsterInstance.ephemeral()
    instance.report_runless_asset_event(
        dg.AssetMaterialization("evaluation_report", metadata={"version": judged, "champion": judged})
    )

    result = candidate_is_not_worse(dg.build_asset_check_context(instance=instance), places=places)

    assert isinstance(result, dg.AssetCheckResult)
    assert result.passed
    assert result.metadata["candidate"].value == judged


def test_nobody_rolls_back_while_the_champion_is_packed(places: DataPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pack that ends last makes the latest bento, so it must be that of the champion."""
    from emotion_assets.steps.packing import bento as packing

    build_bento, is_free = packing.build_bento, []

    def look(*given: Any) -> packing.PackedBento:
        with (places.models_dir / ".registry.lock").open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_free.append(True)
            except BlockingIOError:
                is_free.append(False)
        return build_bento(*given)

    monkeypatch.setattr(packing, "pack", look)

    assert materialize(places, "emotion_bento").success
    assert is_free == [False]
