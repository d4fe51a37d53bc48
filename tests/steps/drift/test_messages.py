from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from emotion_assets.core.image_stats import STATISTICS
from emotion_assets.steps.drift.attribution import Attribution
from emotion_assets.steps.drift.messages import (
    describe_attribution,
    describe_inputs,
    describe_predictions,
    describe_subpopulation,
    describe_unexplained,
)
from emotion_assets.steps.drift.subpopulations import Subpopulation
from emotion_assets.steps.reference.corruptions import UNCHANGED


def attribution(names: tuple[str, ...], loss: float) -> Attribution:
    return Attribution(
        corruptions=names,
        loss=loss,
        is_lower_bound=False,
        part=None,
        class_priors=np.ones(1),
        is_near=True,
        expected=pd.DataFrame(),
        weights=np.ones(0),
    )


@pytest.mark.parametrize("name", STATISTICS)
def test_every_statistic_is_described_in_both_directions(name: str) -> None:
    """A higher and a lower value have different phrases."""
    higher, lower = (describe_inputs({name}, dict.fromkeys(STATISTICS, sign)) for sign in (1.0, -1.0))

    assert higher != lower
    assert all(text.startswith("images are ") for text in (higher, lower))


def test_the_three_strongest_shifts_are_named() -> None:
    """Only columns that drifted count, the strongest first."""
    shifts = dict.fromkeys(STATISTICS, 9.0) | {"noise": 1.0, "brightness": -3.0, "contrast": 2.0, "sharpness": 0.1}

    text = describe_inputs({"noise", "brightness", "contrast", "sharpness", "p_sad"}, shifts)

    assert text == "images are darker, higher in contrast, noisier than the validation images"


def test_the_class_that_gained_most_is_named() -> None:
    """The change is in points of the fraction of predictions."""
    current, reference = (pd.DataFrame({"emotion": ["happy"] * happy + ["sad"] * (10 - happy)}) for happy in (7, 4))

    assert describe_predictions(current, reference) == "predictions shift to happy (+30%)"


def test_an_attribution_names_corruptions_and_cost() -> None:
    """`unchanged` is no corruption; a cost under one point is hardly any."""
    harmful = attribution(("blurrier", UNCHANGED, "noisier"), 0.07)
    harmless = attribution(("darker",), 0.004)

    text = describe_attribution(harmful, None)
    assert text == "images look blurrier or noisier, which costs about 7 points of accuracy on validation images"
    assert "hardly any accuracy" in describe_attribution(harmless, None)


def test_a_cost_may_be_a_lower_bound() -> None:
    """Images as blurred as the most blurred known ones, or more, cost at least as much."""
    text = describe_attribution(replace(attribution(("blurrier",), 0.31), is_lower_bound=True), None)

    assert text == "images look blurrier, which costs at least 31 points of accuracy on validation images"


def test_a_part_is_described_beside_the_whole() -> None:
    """What happened to all images comes first, then the fraction that was corrupted once more, then the cost of both."""
    part = Subpopulation("inverted", 0.31, 0.1, 1e-9)

    text = describe_attribution(attribution(("darker",), 0.12), part)

    assert text.startswith("images look darker, and about 31% of them inverted as well, which costs about 12 points")


@pytest.mark.parametrize(
    ("names", "nearest"), [(("darker", UNCHANGED), " (the nearest: darker)"), ((UNCHANGED,), "")], ids=["one", "none"]
)
def test_unexplained_images_have_an_uncertain_cost(names: tuple[str, ...], nearest: str) -> None:
    """Nothing is claimed that is not known: not a cause, and not a cost without its error."""
    text = describe_unexplained(attribution(names, 0.0), 0.034, 0.05)

    assert text == (f"no known corruption explains the images{nearest}; they may cost 3 ± 5 points of accuracy")
    assert describe_unexplained(attribution(names, 0.0), 0.004, 0.05).endswith("may cost up to 5 points of accuracy")


def test_a_subpopulation_is_described_with_its_fraction() -> None:
    """The cost is that of the whole window."""
    text = describe_subpopulation(Subpopulation("inverted", 0.31, 0.15, 1e-9))

    assert text == "about 31% of the images look inverted, which costs about 15 points of accuracy"
