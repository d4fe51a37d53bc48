"""The gate through Dagster: a worse candidate is rejected, and nothing gets past it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import bentoml
import dagster as dg
import numpy as np
import pytest

from emotion_assets.assets.evaluation import candidate_is_not_worse
from emotion_assets.resources import PipelineSettings
from emotion_assets.steps.registry.registry import Registry
from emotion_assets.steps.splits.splits import Split, read_manifest, read_split, write_splits
from tests.assets.helpers import add, fit, materialize

SURPRISE = 4


def changed_splits(settings: PipelineSettings, change: Callable[[Split], Split]) -> Path:
    """Write the splits with another train split, so that a candidate learns something wrong."""
    target = settings.data_dir / "changed"
    splits = {name: read_split(settings.paths.splits, name) for name in ("train", "val")}
    splits["train"] = change(splits["train"])
    write_splits(target, "0" + read_manifest(settings.paths.splits)["fingerprint"][1:], splits)
    return target


def without_surprise(split: Split) -> Split:
    kept = np.flatnonzero(split.class_indices != SURPRISE)
    return Split(split.pixels[kept], split.class_indices[kept], tuple(split.content_hashes[i] for i in kept))


def shuffled(split: Split) -> Split:
    rng = np.random.default_rng(0)
    return Split(split.pixels, rng.permutation(split.class_indices), split.content_hashes)


def packed_version() -> str:
    return str(bentoml.bentos.get("emotion_service:latest").tag.version)


@pytest.mark.parametrize("kind", ["one epoch", "shuffled labels", "a class is missing"])
def test_a_worse_candidate_is_rejected_everywhere(site: PipelineSettings, kind: str) -> None:
    """The run stops at the gate, the reason is in JSON, UI and log, the champion stays, and no bento is built."""
    registry = Registry(site.paths.models)
    champion = registry.champion()
    root = site.data_dir / "candidate"
    if kind == "one epoch":
        candidate = add(site, fit(site.paths.splits, root, epochs=1))
    else:
        change = shuffled if kind == "shuffled labels" else without_surprise
        candidate = add(site, fit(changed_splits(site, change), root, epochs=16))

    result = materialize(site)
    alone = materialize(site, "emotion_bento")

    (check,) = (c for c in result.get_asset_check_evaluations() if c.check_name == "candidate_is_not_worse")
    record = json.loads((site.paths.evaluation_report(candidate) / "scores.json").read_text())
    decision = record["gate"]
    metadata = result.asset_materializations_for_node("evaluation_report")[0].metadata
    assert not result.success
    assert not check.passed
    assert not decision["is_accepted"]
    assert decision["reasons"][0] in str(metadata["reasons"].value).replace("\\", "")
    assert decision["reasons"][0] in str(check.description)
    assert not result.asset_materializations_for_node("emotion_bento")
    assert alone.success
    assert registry.champion() == champion == packed_version()
    assert registry.history()[-1]["candidate"] == candidate
    if kind == "a class is missing":
        assert record["test"]["recall"]["surprise"] == 0


def test_an_equal_candidate_is_accepted_and_packed(site: PipelineSettings, good_dir: Path) -> None:
    candidate = add(site, good_dir)

    assert materialize(site).success
    assert Registry(site.paths.models).champion() == candidate == packed_version()


def test_a_person_may_force_a_candidate(site: PipelineSettings) -> None:
    """With a reason the rejected candidate is accepted and packed; the gate's reasons are kept beside it."""
    candidate = add(site, fit(site.paths.splits, site.data_dir / "candidate", epochs=1))

    result = materialize(site, force_reason="a demonstration")

    entry = Registry(site.paths.models).history()[-1]
    assert result.success
    assert Registry(site.paths.models).champion() == candidate == packed_version()
    assert entry["force_reason"] == "a demonstration"
    assert entry["reasons"]


def test_the_check_is_about_the_model_that_was_evaluated(site: PipelineSettings, good_dir: Path) -> None:
    """A model that another run has trained meanwhile does not count."""
    evaluated = add(site, good_dir)
    assert materialize(site, "evaluation_report").success
    add(site, good_dir)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.report_runless_asset_event(
            dg.AssetMaterialization("evaluation_report", metadata={"version": evaluated})
        )
        (result,) = candidate_is_not_worse(dg.build_asset_check_context(instance=instance), settings=site)

    assert isinstance(result, dg.AssetCheckResult)
    assert result.passed
    assert result.metadata["candidate"].value == evaluated


def test_the_run_says_why_it_failed(site: PipelineSettings) -> None:
    """The reasons of the gate are the message of the failed step, not only metadata."""
    add(site, fit(site.paths.splits, site.data_dir / "candidate", epochs=1))

    result = materialize(site)

    (failure,) = (event for event in result.all_events if event.is_step_failure)
    error = failure.step_failure_data.error
    decision = Registry(site.paths.models).history()[-1]
    assert error
    assert f"The gate rejected {decision['candidate']}: {decision['reasons'][0]}" in error.message


def test_a_run_that_trained_nothing_new_succeeds(site: PipelineSettings) -> None:
    """The candidate that was rejected before is rejected again, with a warning; the champion is packed."""
    add(site, fit(site.paths.splits, site.data_dir / "candidate", epochs=1))
    champion = Registry(site.paths.models).champion()

    first, second = materialize(site), materialize(site)

    (check,) = (c for c in second.get_asset_check_evaluations() if c.check_name == "candidate_is_not_worse")
    assert (first.success, second.success, check.passed) == (False, True, False)
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert Registry(site.paths.models).champion() == champion == packed_version()
