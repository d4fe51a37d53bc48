from __future__ import annotations

import pandas as pd
import pytest

from emotion_assets.steps.drift.attribution import Attribution
from emotion_assets.steps.drift.messages import (
    describe_attribution,
    describe_inputs,
    describe_predictions,
    describe_subpopulation,
)
from emotion_assets.steps.drift.subpopulations import Subpopulation
from emotion_assets.steps.drift.tiers import INPUT_COLUMNS
from emotion_assets.steps.reference.corruptions import UNCHANGED


@pytest.mark.parametrize("name", INPUT_COLUMNS)
def test_every_statistic_is_described_in_both_directions(name: str) -> None:
    """A higher and a lower value have different phrases."""
    p_values = dict.fromkeys(INPUT_COLUMNS, 1.0) | {name: 0.0}

    higher, lower = (describe_inputs(p_values, dict.fromkeys(INPUT_COLUMNS, sign)) for sign in (1.0, -1.0))

    assert higher != lower
    assert all(text.startswith("images are ") for text in (higher, lower))


def test_the_three_strongest_shifts_are_named() -> None:
    """Only significant ones count, the strongest first."""
    shifts = dict.fromkeys(INPUT_COLUMNS, 9.0) | {"noise": 1.0, "brightness": -3.0, "contrast": 2.0, "sharpness": 0.1}
    p_values = dict.fromkeys(INPUT_COLUMNS, 0.5) | dict.fromkeys(("noise", "brightness", "contrast", "sharpness"), 0.0)

    text = describe_inputs(p_values, shifts)

    assert text == "images are darker, higher in contrast, noisier than the validation images"


def test_the_class_that_gained_most_is_named() -> None:
    """The change is in points of the fraction of predictions."""
    current, reference = (pd.DataFrame({"emotion": ["happy"] * happy + ["sad"] * (10 - happy)}) for happy in (7, 4))

    assert describe_predictions(current, reference) == "predictions shift to happy (+30%)"


def test_an_attribution_names_corruptions_and_cost() -> None:
    """`unchanged` is no corruption; a cost under one point is hardly any."""
    harmful = Attribution(("blurrier", UNCHANGED, "noisier"), 0.07, pd.DataFrame())
    harmless = Attribution(("darker",), 0.004, pd.DataFrame())

    text = describe_attribution(harmful, is_unexplained=False)
    assert text == "images look blurrier or noisier, which costs about 7 points of accuracy on validation images"
    assert "hardly any accuracy" in describe_attribution(harmless, is_unexplained=False)
    assert "changed more than that explains" in describe_attribution(harmless, is_unexplained=True)


def test_a_subpopulation_is_described_with_its_fraction() -> None:
    """The cost is that of the whole window."""
    text = describe_subpopulation(Subpopulation("inverted", 0.31, 0.15, 1e-9))

    assert text == "about 31% of the images look inverted, which costs about 15 points of accuracy"
