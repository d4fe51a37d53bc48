from __future__ import annotations

import shutil
from pathlib import Path

import bentoml
import dagster as dg
import pytest

from emotion_assets.assets.evaluation import candidate_is_not_worse, evaluation_report
from emotion_assets.assets.packing import emotion_bento
from emotion_assets.assets.training import TrainingRunConfig, trained_cnn
from emotion_assets.resources import PipelineSettings
from emotion_assets.steps.registry.registry import Registry
from emotion_assets.steps.training.config import TrainingConfig


def test_the_launchpad_has_every_field_of_the_configuration() -> None:
    """Each is optional there, with the description and the limits of its one definition."""
    fields = TrainingRunConfig.model_fields

    assert set(fields) == set(TrainingConfig.model_fields) | {"preset", "engine", "tracker"}
    assert all(field.description for field in fields.values())
    assert all(field.default is None for name, field in fields.items() if name in TrainingConfig.model_fields)


@pytest.mark.parametrize("value", [0, -1, "many"])
def test_a_wrong_value_fails_before_the_step_starts(settings: PipelineSettings, value: object) -> None:
    with pytest.raises((dg.DagsterInvalidConfigError, ValueError)):
        dg.materialize(
            [trained_cnn],
            resources={"settings": settings},
            run_config={"ops": {"trained_cnn": {"config": {"epochs": value}}}},
        )


def test_a_network_is_trained_and_shown(settings: PipelineSettings, drawn_root: Path) -> None:
    shutil.copytree(drawn_root / "splits", settings.paths.splits)
    config = {"preset": "quick", "epochs": 2, "width": 8, "batch_size": 32}

    result = dg.materialize(
        [trained_cnn], resources={"settings": settings}, run_config={"ops": {"trained_cnn": {"config": config}}}
    )

    (materialization,) = result.asset_materializations_for_node("trained_cnn")
    (check,) = result.get_asset_check_evaluations()
    version = materialization.metadata["version"].value
    assert result.success
    assert check.check_name == "network_beats_chance"
    assert materialization.metadata["epochs"].value == 2
    assert (settings.paths.models / str(version) / "manifest.json").exists()


def test_a_diverged_training_leaves_the_champion(site: PipelineSettings) -> None:
    """Its run stops at the network: no bundle, no decision, no bento."""
    registry = Registry(site.paths.models)
    before = registry.champion(), registry.versions(), registry.history()
    rates = {"learning_rate": 1e30, "adam_learning_rate": 1e30}
    config = {"preset": "quick", "epochs": 2, "width": 8, "batch_size": 32, **rates}

    result = dg.materialize(
        [trained_cnn, evaluation_report, candidate_is_not_worse, emotion_bento],
        resources={"settings": site},
        run_config={"ops": {"trained_cnn": {"config": config}}},
        raise_on_error=False,
    )

    (failure,) = (event for event in result.all_events if event.is_step_failure)
    assert failure.step_key == "trained_cnn"
    assert "Lower learning_rate" in str(failure.step_failure_data.error)
    assert (registry.champion(), registry.versions(), registry.history()) == before
    assert str(bentoml.bentos.get("emotion_service:latest").tag.version) == before[0]
