from __future__ import annotations

import pytest

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.steps.training.config import PRESETS, TrainingConfig, training_config


def test_presets_take_overrides() -> None:
    """An override replaces the preset's value, and None keeps it."""
    assert training_config("quick", epochs=3, seed=None) == PRESETS["quick"].model_copy(update={"epochs": 3})
    assert training_config("standard") == PRESETS["standard"] == TrainingConfig()


@pytest.mark.parametrize(
    ("preset", "overrides", "message"),
    [
        ("fast", {}, "no preset 'fast'. Use one of quick, standard, long"),
        ("quick", {"epochs": 0}, "epochs cannot be 0. Input should be greater than or equal to 1"),
        ("quick", {"precision": "8-bit"}, "precision cannot be '8-bit'"),
        ("quick", {"with": 8}, "with cannot be 8"),
        ("quick", {"batch_size": 2, "devices": 2}, "2 images cannot be split among 2 processes"),
    ],
)
def test_unusable_choices_are_rejected(preset: str, overrides: dict[str, object], message: str) -> None:
    """The message names the field and the value."""
    with pytest.raises(UnusableDataError, match=message):
        training_config(preset, **overrides)


def test_every_field_can_be_shown_in_a_launchpad() -> None:
    """Each has a description and a default."""
    for field in TrainingConfig.model_fields.values():
        assert field.description
        assert not field.is_required()
