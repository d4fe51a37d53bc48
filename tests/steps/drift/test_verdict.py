from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from emotion_assets.core.bundle import CORRUPTIONS_NAME, REFERENCE_NAME
from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.features import feature_columns
from emotion_assets.core.image_stats import STATISTICS
from emotion_assets.core.images import Pixels
from emotion_assets.steps.drift.subpopulations import Subpopulation
from emotion_assets.steps.drift.verdict import (
    FALSE_ALARM_RATE,
    DriftReference,
    DriftState,
    DriftVerdict,
    Severity,
    assess,
    significance_level,
)
from emotion_assets.steps.reference.corruptions import corruption_profile
from emotion_assets.steps.reference.reference import build_reference, feature_table, round_features
from emotion_assets.steps.splits.splits import Split
from tests.steps.drift.helpers import (
    assess_tables,
    calibrated_window,
    inverted_profile,
    mixed_window,
    predict_by_bands,
    random_window,
)


@pytest.mark.parametrize("emotions", [("no", "yes"), ("angry", "fear", "happy", "sad", "surprise"), tuple("abcdefgh")])
def test_each_tier_keeps_the_false_alarm_rate(emotions: tuple[str, ...]) -> None:
    """The limits of a tier's columns add up to the rate of false alarms; no logged column is left out."""
    columns = feature_columns(emotions)
    limits = {column: significance_level(column, pd.DataFrame(columns=columns)) for column in columns}

    assert sum(limits.pop(name) for name in STATISTICS) == pytest.approx(FALSE_ALARM_RATE)
    assert sum(limits.values()) == pytest.approx(FALSE_ALARM_RATE)


def test_windows_without_drift_seldom_raise_an_alarm() -> None:
    """Over 200 windows without drift, each tier raises at most a few alarms."""
    reference = DriftReference.from_tables(random_window(3000, seed=0))
    verdicts = [assess(random_window(200, seed=seed), reference) for seed in range(1, 201)]

    assert sum(verdict.has_input_drift for verdict in verdicts) <= 6
    assert sum(verdict.has_prediction_drift for verdict in verdicts) <= 6


def test_darker_images_are_input_drift() -> None:
    """Drift of the inputs alone warns, and its cause is described."""
    verdict = assess_tables(random_window(200, seed=1, shift=-0.1), random_window(2000, seed=0))

    assert verdict.state == DriftState.INPUT_DRIFT
    assert "darker" in verdict.cause
    assert verdict.shifts["brightness"] == pytest.approx(-1, abs=0.3)


def test_changed_predictions_are_prediction_drift() -> None:
    """Drift of the predictions is the stronger state."""
    verdict = assess_tables(random_window(200, seed=1, happy=0.7), random_window(2000, seed=0))

    assert verdict.state == DriftState.PREDICTION_DRIFT
    assert not verdict.has_input_drift
    assert "happy" in verdict.cause


@pytest.mark.parametrize("count", [0, 1, 49])
def test_too_few_images_have_no_verdict(count: int) -> None:
    """Below fifty images there is neither drift nor its absence."""
    verdict = assess_tables(random_window(count, seed=1, shift=-0.4), random_window(2000, seed=0))

    assert verdict.state == DriftState.TOO_FEW
    assert str(count) in verdict.cause
    assert not verdict.p_values


def test_constant_columns_and_missing_emotions_are_drift() -> None:
    """A camera that sends one and the same image is drift, not an error."""
    current = random_window(60, seed=1)
    current[feature_columns(EMOTIONS)[:-1]] = 0.5
    current["emotion"] = "sad"

    assert assess_tables(current, random_window(500, seed=0)).state == DriftState.PREDICTION_DRIFT


def test_other_class_priors_are_label_shift() -> None:
    """When people merely smile more, class priors explain the predictions; other changes are not explained."""
    reference = calibrated_window(3000, seed=0)
    changed = calibrated_window(300, seed=2)
    changed["p_sad"] = changed["p_sad"] * 0.5 + 0.4

    happier, drifted = (assess_tables(table, reference) for table in (calibrated_window(300, 1, happy=0.7), changed))

    assert happier.state == DriftState.LABEL_SHIFT
    assert happier.is_label_shift
    assert not happier.is_significant
    assert happier.class_priors is not None
    assert happier.class_priors["happy"] == pytest.approx(0.7, abs=0.1)
    assert "as a label shift would cause" in happier.cause
    assert drifted.state == DriftState.PREDICTION_DRIFT
    assert drifted.severity == Severity.STRONG


def test_input_drift_alone_has_no_severity() -> None:
    """In a small window, chance moves the predictions as far as drift would."""
    reference = random_window(3000, seed=0)
    verdicts = [assess_tables(random_window(50, seed, shift=0.15), reference) for seed in range(1, 6)]

    alone = [verdict for verdict in verdicts if verdict.has_input_drift and not verdict.has_prediction_drift]
    assert len(alone) >= 3
    assert {verdict.severity for verdict in alone if verdict.state == DriftState.INPUT_DRIFT} == {Severity.NONE}


def test_a_few_outliers_among_many_images_are_counted() -> None:
    """Ten percent of images unlike any face are found, though every distribution looks nearly the same."""
    reference = random_window(3000, seed=0)
    current = random_window(200, seed=1)
    current.loc[:19, list(current.columns[:12])] += np.where(np.arange(12) % 2, 0.25, -0.25)

    verdict = assess_tables(current, reference)

    assert verdict.has_outliers
    assert verdict.num_outliers >= 18
    assert f"{verdict.num_outliers} of 200 images are outliers" in verdict.cause
    assert not assess_tables(random_window(200, seed=2), reference).has_outliers


def test_unexplained_predictions_are_significant() -> None:
    """Where nothing known explains a window, what the nearest explanation leaves unexplained counts."""
    verdict = assess_tables(random_window(200, seed=1, happy=0.7), random_window(2000, seed=0))

    assert verdict.is_significant
    assert not replace(verdict, unexplained_p_value=1e-3).is_significant
    assert replace(verdict, unexplained_p_value=1e-9).is_significant


@pytest.mark.parametrize(
    ("predict", "is_harmful", "state"),
    [
        (predict_by_bands, True, DriftState.PREDICTION_DRIFT),
        (partial(predict_by_bands, temperature=2000), False, DriftState.INPUT_DRIFT),
    ],
    ids=["confident", "uncertain"],
)
def test_the_cost_of_a_corruption_decides_the_state(
    halves: tuple[Split, Pixels],
    profile: pd.DataFrame,
    predict: Callable[[Pixels], npt.NDArray[np.float32]],
    is_harmful: bool,
    state: DriftState,
) -> None:
    """The same images are acted on if confident predictions change, and only warn if all classes were as probable."""
    val, others = halves
    pixels = (255 - others).astype(np.uint8)

    verdict = assess_tables(
        feature_table(pixels, predict(pixels), EMOTIONS),
        build_reference(val, predict(val.pixels)),
        profile if is_harmful else corruption_profile(val, predict),
    )

    assert verdict.nearest_corruptions == ("inverted",)
    assert verdict.has_prediction_drift
    assert verdict.state == state
    assert "images look inverted" in verdict.cause
    assert verdict.expected_accuracy_loss is not None
    assert (verdict.expected_accuracy_loss > 0.2) is is_harmful


def test_a_harmless_corruption_does_not_hide_another_change(
    halves: tuple[Split, Pixels], profile: pd.DataFrame
) -> None:
    """Dark images that are rotated as well look dark, but nothing known changes predictions like this."""
    val, others = halves
    dark = np.round(np.rot90(others, axes=(1, 2)) * 0.5).astype(np.uint8)
    probabilities = predict_by_bands(np.ascontiguousarray(dark))
    probabilities[:, 3] = probabilities[:, 3] * 0.5 + 0.4
    probabilities /= probabilities.sum(axis=1, keepdims=True)

    verdict = assess_tables(
        feature_table(dark, probabilities, EMOTIONS), build_reference(val, predict_by_bands(val.pixels)), profile
    )

    assert "darker" in verdict.nearest_corruptions
    assert verdict.state == DriftState.PREDICTION_DRIFT
    assert "no known corruption explains the images" in verdict.cause
    assert verdict.expected_accuracy_loss is not None
    assert verdict.loss_error is not None


def test_a_harmless_corruption_with_other_class_priors_only_warns(
    halves: tuple[Split, Pixels], profile: pd.DataFrame
) -> None:
    """Dark faces, most of them of one emotion: the predictions differ for a reason that costs nothing."""
    val, others = halves
    dark = np.round(others * 0.6).astype(np.uint8)
    probabilities = predict_by_bands(dark)
    is_drawn = probabilities.argmax(axis=1) == probabilities.argmax(axis=1)[0]
    chosen = np.concatenate([np.flatnonzero(is_drawn).repeat(6), np.flatnonzero(~is_drawn)])

    verdict = assess_tables(
        feature_table(dark[chosen], probabilities[chosen], EMOTIONS),
        build_reference(val, predict_by_bands(val.pixels)),
        profile,
    )

    assert verdict.has_prediction_drift
    assert verdict.nearest_corruptions[0] == "darker"
    assert verdict.state == DriftState.INPUT_DRIFT


def test_differences_too_small_to_matter_are_no_drift() -> None:
    """In a large window a tenth of a standard deviation is significant, and still nothing to warn of."""
    reference = DriftReference.from_tables(random_window(5000, seed=0))

    small, large = (assess(random_window(5000, seed=1, shift=shift), reference) for shift in (0.02, 0.05))

    assert small.p_values["brightness"] < 1e-6
    assert small.state == DriftState.OK
    assert large.state == DriftState.INPUT_DRIFT


def test_a_harmful_subpopulation_is_acted_on() -> None:
    """Three corrupted images in ten are found, counted and priced, though most of the window looks unchanged."""
    verdict = assess_tables(mixed_window(100, 0.3, seed=5), *inverted_profile(600, 2000))

    found = verdict.subpopulation
    assert found is not None
    assert found.corruption == "inverted"
    assert found.fraction == pytest.approx(0.3, abs=0.12)
    assert found.loss == pytest.approx(0.3 * 0.8 * 0.6, abs=0.07)
    assert verdict.state == DriftState.PREDICTION_DRIFT
    assert "of the images look inverted" in verdict.cause
    assert json.loads(json.dumps(asdict(verdict)))["subpopulation"]["corruption"] == "inverted"


def test_a_harmless_subpopulation_only_warns() -> None:
    """One corrupted image in twenty is found in a large window, and does not justify a retrain."""
    verdict = assess_tables(mixed_window(1000, 0.06, seed=5), *inverted_profile(600, 2000))

    assert verdict.subpopulation is not None
    assert verdict.subpopulation.loss < 0.06
    assert verdict.state in {DriftState.OUTLIERS, DriftState.INPUT_DRIFT}


def test_a_reference_is_loaded_from_a_bundle(tmp_path: Path) -> None:
    """The corruption profile is optional; the verdict is that of the tables."""
    reference, profile = inverted_profile(200, 500)
    reference.to_parquet(tmp_path / REFERENCE_NAME)
    assert DriftReference.load(tmp_path).corruptions is None
    profile.to_parquet(tmp_path / CORRUPTIONS_NAME)
    current = mixed_window(200, 0.3, seed=5)

    loaded = assess(current, DriftReference.load(tmp_path))

    assert loaded.state == assess_tables(current, reference, profile).state == DriftState.PREDICTION_DRIFT
    assert loaded.subpopulation is not None


def test_only_what_is_acted_on_is_significant() -> None:
    """However improbable the predictions are; improbable inputs are no reason to act."""
    verdict = DriftVerdict(
        state=DriftState.PREDICTION_DRIFT, cause="", num_current=200, num_reference=2000, p_values={"p_sad": 1e-9}
    )

    assert verdict.is_significant
    for state in set(DriftState) - {DriftState.PREDICTION_DRIFT}:
        assert not replace(verdict, state=state).is_significant
    assert not replace(verdict, p_values={"p_sad": 1e-3, "brightness": 1e-9}).is_significant
    assert not replace(verdict, is_label_shift=True).is_significant


@pytest.mark.parametrize(
    ("loss", "p_value", "is_significant"), [(0.2, 1e-9, True), (0.2, 1e-3, False), (0.01, 1e-9, False)]
)
def test_a_harmful_subpopulation_may_be_significant(loss: float, p_value: float, is_significant: bool) -> None:
    """One that costs little is not, nor is one that may be chance; a label shift of the others explains neither."""
    verdict = DriftVerdict(
        state=DriftState.PREDICTION_DRIFT,
        cause="",
        num_current=200,
        num_reference=2000,
        p_values={"p_sad": 1e-9},
        is_label_shift=True,
        subpopulation=Subpopulation("inverted", 0.3, loss, p_value),
    )

    assert verdict.is_significant is is_significant


def test_too_few_validation_images_have_no_verdict() -> None:
    """As many as are needed of both are enough."""
    current = random_window(50, seed=1)
    few, enough = (assess_tables(current, random_window(count, seed=0)) for count in (49, 50))

    assert few.state == DriftState.TOO_FEW
    assert "takes 500 labelled images" in few.cause
    assert enough.state != DriftState.TOO_FEW


def test_a_window_without_drift_is_ok() -> None:
    """Nothing is named, not even the most probable subpopulation."""
    verdict = assess_tables(mixed_window(200, 0.0, seed=1), *inverted_profile(600, 2000))

    assert verdict.state == DriftState.OK
    assert verdict.severity == Severity.NONE
    assert verdict.cause == "no change beyond chance."
    assert verdict.subpopulation is None
    assert not verdict.is_significant


def test_a_harmless_subpopulation_counts_as_outliers() -> None:
    """Though none of its images is one."""
    verdict = assess_tables(mixed_window(600, 0.08, seed=2), *inverted_profile(600, 2000))

    assert verdict.state == DriftState.OUTLIERS
    assert not verdict.has_outliers
    assert not verdict.is_significant
    assert "of the images look inverted" in verdict.cause


def test_a_constant_column_of_the_reference_is_no_error() -> None:
    """Such as the colorfulness of gray images; there is no standard deviation to measure its shift by."""
    reference = random_window(500, seed=0).assign(brightness=0.5)

    verdict = assess_tables(random_window(200, seed=1), reference)

    assert verdict.shifts["brightness"] == 0
    assert verdict.has_input_drift


def test_a_loaded_reference_is_rounded_like_the_log(tmp_path: Path) -> None:
    """Otherwise equal values would differ in their last digits."""
    reference = random_window(500, seed=0)
    reference.to_parquet(tmp_path / REFERENCE_NAME)

    loaded = DriftReference.load(tmp_path).table

    assert not loaded.equals(reference)
    pd.testing.assert_frame_equal(loaded, round_features(reference))
