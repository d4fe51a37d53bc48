from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from emotion_assets.steps.drift.hypotheses import Condition, Hypothesis, make_hypotheses
from emotion_assets.steps.drift.subpopulations import Floats
from emotion_assets.steps.reference.corruptions import UNCHANGED

EQUAL = np.array([0.5, 0.5])
SHIFTED = np.array([0.9, 0.1])


def condition(name: str, strength: float, shift: list[float], loss: float = 0.0, part: str = "") -> Condition:
    """Two classes, of which the second has larger features, all moved by `shift`."""
    means = np.array([[0.0, 0.0, 0.0], [2.0, 1.0, 0.0]]) + shift
    return Condition(
        name=name,
        strength=strength,
        part=part,
        table=pd.DataFrame(),
        means=means,
        shift=np.array(shift),
        covariance=np.eye(3),
        error=0.001 * np.eye(3),
        losses=np.array([loss, loss]),
        loss=loss,
    )


CLEAN = condition(UNCHANGED, 0, [0, 0, 0])
WEAK = condition("darker", 0.85, [1, 0, 0], loss=0.01)
STRONG = condition("darker", 0.2, [4, 0, 0], loss=0.04)
INVERTED = condition("inverted", 1, [0, 0, 5], loss=0.5)
WEAK_INVERTED = condition("darker", 0.85, [1, 0, 5], loss=0.5, part="inverted")
STRONG_INVERTED = condition("darker", 0.2, [4, 0, 5], loss=0.6, part="inverted")


def test_fractions_of_two_strengths_are_fitted() -> None:
    """Images between two strengths are a mixture of both, and so is their loss."""
    observed = EQUAL @ (0.25 * WEAK.means + 0.75 * STRONG.means)

    fit = Hypothesis((WEAK, STRONG)).fit(observed, 200, np.stack([EQUAL, EQUAL]))

    assert fit
    assert fit.weights.sum(axis=1) == pytest.approx([0.25, 0.75], abs=1e-3)
    assert fit.loss == pytest.approx(0.25 * 0.01 + 0.75 * 0.04, abs=1e-4)
    assert fit.distance == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(("fraction", "is_fitted"), [(0.3, True), (0.7, False)])
def test_a_part_is_at_most_half_of_the_images(fraction: float, is_fitted: bool) -> None:
    """Else it is the corruption of all images, which another hypothesis says."""
    observed = EQUAL @ ((1 - fraction) * CLEAN.means + fraction * INVERTED.means)

    fit = Hypothesis((CLEAN,), (INVERTED,)).fit(observed, 200, np.stack([EQUAL, EQUAL]))

    assert (fit is not None) == is_fitted
    assert fit is None or fit.weights[1].sum() == pytest.approx(fraction, abs=1e-3)


@pytest.mark.parametrize("true_priors", [EQUAL, SHIFTED], ids=["equal", "shifted"])
def test_other_class_priors_take_part_only_where_they_explain_more(true_priors: Floats) -> None:
    """The estimate of the window's class priors may be wrong."""
    fit = Hypothesis((CLEAN,)).fit(true_priors @ CLEAN.means, 200, np.stack([EQUAL, SHIFTED]))

    assert fit
    assert fit.weights.sum(axis=0) == pytest.approx(true_priors, abs=0.02)


def test_a_better_explanation_is_more_likely() -> None:
    """Of the same window."""
    observed = EQUAL @ STRONG.means

    fits = [Hypothesis((each,)).fit(observed, 200, np.stack([EQUAL, EQUAL])) for each in (CLEAN, WEAK, STRONG)]

    assert fits[0] and fits[1] and fits[2]  # noqa: PT018 -- for the type checker
    assert fits[0].log_likelihood < fits[1].log_likelihood < fits[2].log_likelihood
    assert fits[0].distance > fits[1].distance > fits[2].distance


def test_hypotheses_are_strengths_alone_between_two_and_with_a_part() -> None:
    """A combination is added in the nearest strength; below the weakest one, the part may be alone as well."""
    hypotheses = list(make_hypotheses([CLEAN, WEAK, STRONG, INVERTED, WEAK_INVERTED, STRONG_INVERTED]))

    found = [(each.whole, each.parts) for each in hypotheses]
    expected = [
        ((CLEAN,), ()),
        ((CLEAN, WEAK), ()),
        ((CLEAN, WEAK), (INVERTED, WEAK_INVERTED)),
        ((WEAK, STRONG), ()),
        ((WEAK, STRONG), (WEAK_INVERTED, STRONG_INVERTED)),
        ((STRONG,), ()),
        ((STRONG,), (STRONG_INVERTED,)),
        ((CLEAN,), (INVERTED,)),
        ((INVERTED,), ()),
    ]
    assert [[*map(id, (*whole, *parts))] for whole, parts in found] == [
        [*map(id, (*whole, *parts))] for whole, parts in expected
    ]
    assert [each.is_strongest for each in hypotheses] == [False] * 5 + [True] * 2 + [False] * 2
    assert [each.name for each in hypotheses] == [UNCHANGED, *["darker"] * 6, UNCHANGED, "inverted"]
