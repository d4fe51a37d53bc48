from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.features import probability_columns
from emotion_assets.core.image_stats import STATISTICS
from emotion_assets.core.images import Pixels
from emotion_assets.steps.drift.attribution import MIN_PART_IMAGES, Attribution, CorruptionProfile
from emotion_assets.steps.drift.label_shift import class_priors
from emotion_assets.steps.reference.corruptions import CORRUPTION_COLUMN, UNCHANGED
from emotion_assets.steps.reference.reference import build_reference, feature_table
from emotion_assets.steps.splits.splits import Split
from tests.steps.drift.helpers import inverted_profile, mixed_window, normal_window, predict_by_bands


@pytest.mark.parametrize(
    ("corrupt", "name"),
    [
        (lambda face: face.point(lambda gray: round(0.6 * gray)), "darker"),
        (lambda face: face.filter(ImageFilter.GaussianBlur(1.6)), "blurrier"),
        (lambda face: face.transpose(Image.Transpose.ROTATE_90), "rotated by 90°"),
        (lambda face: face.point(lambda gray: 255 - gray), "inverted"),
    ],
    ids=["darker", "blurrier", "rotated", "inverted"],
)
def test_the_corruption_is_named(
    halves: tuple[Split, Pixels], profile: pd.DataFrame, corrupt: Callable[[Image.Image], Image.Image], name: str
) -> None:
    """Other faces, corrupted by other code than the profile's, resemble the right corruption."""
    val, others = halves
    pixels = np.stack([np.asarray(corrupt(Image.fromarray(face))) for face in others])
    current = feature_table(pixels, predict_by_bands(pixels), EMOTIONS)

    found = CorruptionProfile(build_reference(val, predict_by_bands(val.pixels)), profile).attribute(current)

    assert found.corruptions[0] == name
    assert found.is_corruption
    assert found.is_near
    assert found.weights.sum() == pytest.approx(1, abs=1e-4)


def test_a_corrupted_part_is_found_below_another_corruption(
    halves: tuple[Split, Pixels], profile: pd.DataFrame
) -> None:
    """All images are dark, three in ten of them inverted as well: both are named, and the part is counted."""
    val, others = halves
    pixels = np.round(0.6 * np.concatenate([others, others[:, :, ::-1]])).astype(np.uint8)
    is_inverted = np.arange(len(pixels)) % 10 < 3
    pixels[is_inverted] = 255 - pixels[is_inverted]
    current = feature_table(pixels, predict_by_bands(pixels), EMOTIONS)

    corruptions = CorruptionProfile(build_reference(val, predict_by_bands(val.pixels)), profile)
    found = corruptions.attribute(current)

    assert found.corruptions == ("darker",)
    assert corruptions.attribute(current.head(MIN_PART_IMAGES - 1)).part is None
    assert found.part is not None
    assert found.part.corruption == "inverted"
    assert found.part.fraction == pytest.approx(0.3, abs=0.1)
    assert found.part.p_value < 0.01
    assert found.loss == pytest.approx(found.part.loss, abs=0.05)


def test_other_class_priors_hide_no_corruption_and_cost_nothing() -> None:
    """Happy faces alone, with and without a corruption that costs half of the accuracy."""
    reference, table = inverted_profile(600, 2000)
    profile = CorruptionProfile(reference, table)
    happy, inverted = (normal_window(2000, 5, shift).query("emotion == 'happy'") for shift in (0.0, 1.0))

    clean, corrupted = (profile.attribute(window.head(200)) for window in (happy, inverted))
    usual = profile.attribute(normal_window(200, 5))

    assert clean.class_priors[EMOTIONS.index("happy")] > 0.9
    np.testing.assert_allclose(usual.class_priors, class_priors(reference), rtol=1e-4)
    assert clean.corruptions == (UNCHANGED,)
    assert clean.loss < 0.03
    assert corrupted.corruptions == ("inverted",)
    assert corrupted.loss == pytest.approx(0.5, abs=0.06)


def test_images_beyond_the_strongest_corruption_cost_at_least_as_much(
    halves: tuple[Split, Pixels], profile: pd.DataFrame
) -> None:
    """A blur stronger than the strongest known one is a bound, a weaker one is not."""
    val, others = halves
    corruptions = CorruptionProfile(build_reference(val, predict_by_bands(val.pixels)), profile)

    def attribute(radius_px: float) -> Attribution:
        blurred = [Image.fromarray(face).filter(ImageFilter.GaussianBlur(radius_px)) for face in others]
        pixels = np.stack([np.asarray(face) for face in blurred])
        return corruptions.attribute(feature_table(pixels, predict_by_bands(pixels), EMOTIONS))

    weak, strong = attribute(1.6), attribute(6)

    assert weak.corruptions == strong.corruptions == ("blurrier",)
    assert (weak.is_lower_bound, strong.is_lower_bound) == (False, True)


def test_the_cost_by_confidence_has_an_error() -> None:
    reference, table = inverted_profile(600, 2000)

    loss, error = CorruptionProfile(reference, table).loss_by_confidence(normal_window(200, 6))

    assert loss == pytest.approx(0, abs=0.02)
    assert error > 0


def test_the_cost_follows_from_the_probabilities() -> None:
    """Four predictions in five change from a probability of 0.7 to one of 0.075."""
    profile = CorruptionProfile(*inverted_profile(600, 2000))

    corrupted, clean = (profile.attribute(normal_window(200, 5, shift)) for shift in (1.0, 0.0))

    assert (corrupted.corruptions, clean.corruptions) == (("inverted",), (UNCHANGED,))
    assert corrupted.loss == pytest.approx(0.8 * 0.625, abs=0.05)
    assert clean.loss == pytest.approx(0, abs=0.01)
    assert not clean.is_corruption
    assert len(clean.expected) >= 2000  # all of the reference
    assert not corrupted.is_lower_bound  # it has one strength


def test_what_resembles_no_corruption_is_near_none() -> None:
    """Neither a change in the opposite direction nor one of the spread alone."""
    profile = CorruptionProfile(*inverted_profile(600, 2000))
    spread = normal_window(200, 5)
    spread[list(STATISTICS)] *= 2

    assert not profile.attribute(normal_window(200, 5, shift=-1.0)).is_near
    assert not profile.attribute(spread).is_near


def test_one_odd_image_does_not_decide() -> None:
    """However far its statistics are from all others'."""
    odd = normal_window(200, 5)
    odd.loc[0, list(STATISTICS)] = 1e3

    found = CorruptionProfile(*inverted_profile(600, 2000)).attribute(odd)

    assert found.corruptions == (UNCHANGED,)
    assert found.is_near


@pytest.mark.parametrize(("num_images", "num_reference"), [(600, 2000), (100, 100)], ids=["many", "few"])
def test_clean_windows_have_no_subpopulation(num_images: int, num_reference: int) -> None:
    """Images that a detector was fitted to score lower than others; that must raise no alarm."""
    profile = CorruptionProfile(*inverted_profile(num_images, num_reference))
    found = [profile.detect_subpopulation(mixed_window(200, 0.0, seed)) for seed in range(100)]

    assert sum(each is not None and each.p_value < 0.01 for each in found) <= 4


def test_a_subpopulation_is_found_under_other_class_priors() -> None:
    """Weights of the reference's rows apply to the held-out ones among them."""
    reference, table = inverted_profile(600, 2000)
    profile = CorruptionProfile(reference, table)
    weights = np.where(reference["emotion"] == "happy", 3.0, 0.5)

    found = profile.detect_subpopulation(mixed_window(200, 0.3, seed=5), weights)
    clean = [profile.detect_subpopulation(mixed_window(200, 0.0, seed), weights) for seed in range(50)]

    assert found is not None
    assert found.p_value < 1e-6
    assert sum(each is not None and each.p_value < 0.01 for each in clean) <= 3


def test_a_constant_column_is_no_error() -> None:
    """Such as the sharpness of drawings."""
    tables = [*inverted_profile(600, 2000), normal_window(200, 5)]
    reference, table, window = (each.assign(sharpness=0.5) for each in tables)

    assert CorruptionProfile(reference, table).attribute(window).corruptions == (UNCHANGED,)


def test_a_harmless_corruption_is_no_subpopulation() -> None:
    """It changes the images and not the predictions."""
    reference, table = inverted_profile(600, 2000)
    columns = [*probability_columns(EMOTIONS), "emotion"]
    is_inverted = table[CORRUPTION_COLUMN] == "inverted"
    table.loc[is_inverted, columns] = table.loc[~is_inverted, columns].to_numpy()

    assert CorruptionProfile(reference, table).detect_subpopulation(mixed_window(200, 0.3, seed=5)) is None


def test_lost_confidence_costs(halves: tuple[Split, Pixels], profile: pd.DataFrame) -> None:
    """The less sure the predictions are, the more; as sure as usual, or surer, they cost nothing."""
    val, others = halves
    corruptions = CorruptionProfile(build_reference(val, predict_by_bands(val.pixels)), profile)

    sure, usual, unsure, doubtful = (
        corruptions.loss_by_confidence(feature_table(others, predict_by_bands(others, temperature), EMOTIONS))[0]
        for temperature in (15, 20, 40, 80)
    )

    assert sure == 0
    assert usual == pytest.approx(0, abs=0.01)
    assert usual + 0.02 < unsure < doubtful - 0.01


def test_another_mix_of_classes_costs_no_confidence(halves: tuple[Split, Pixels], profile: pd.DataFrame) -> None:
    """Of the classes that the model is always less sure of."""
    val, others = halves
    corruptions = CorruptionProfile(build_reference(val, predict_by_bands(val.pixels)), profile)
    table = feature_table(others, predict_by_bands(others), EMOTIONS)
    names = [f"p_{emotion}" for emotion in EMOTIONS]
    confidence = table[names].max(axis=1)
    least = confidence.groupby(table["emotion"]).mean().idxmin()

    mixed = pd.concat([table, *[table[table["emotion"] == least]] * 8], ignore_index=True)

    assert corruptions.loss_by_confidence(mixed)[0] < 0.014  # 0.016 under the reference's priors
