from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg
import pytest

from emotion_assets.assets.training import TrainingRunConfig, trained_cnn
from emotion_assets.resources import PipelineSettings
from emotion_assets.steps.training.config import TrainingConfig


def test_the_launchpad_has_every_field_of_the_configuration() -> None:
    """Each is optional there, with the description and the limits of its one definition."""
    fields = TrainingRunConfig.model_fields

    assert set(fields) == set(TrainingConfig.model_fields) | {"preset", "tracker"}
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
