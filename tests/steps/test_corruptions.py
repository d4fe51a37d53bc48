"""Known changes are corrupted before a model serves; later they name the cause of drift and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image, ImageFilter

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.features import FEATURE_COLUMNS
from emotion_assets.core.image_stats import STATISTICS
from emotion_assets.core.images import Pixels
from emotion_assets.steps.drift.attribution import CorruptionProfile
from emotion_assets.steps.drift.verdict import judge
from emotion_assets.steps.reference.corruptions import CORRUPTIONS, MIN_FACES, UNCHANGED, corruption_profile
from emotion_assets.steps.reference.reference import TRUE_EMOTION_COLUMN, build_reference, feature_table
from emotion_assets.steps.splits.splits import Split, read_split


def answered(pixels: Pixels, doubt: float = 20) -> npt.NDArray[np.float32]:
    """What a network would say that looks for light in five bands, brightest first; the surer, the less its doubt."""
    bands = pixels[:, 2:62].reshape(len(pixels), 5, 12, 64).mean(axis=(2, 3)).astype(np.float32)
    scores = np.exp((bands - bands.mean(axis=1, keepdims=True)) / np.float32(doubt))
    return np.asarray(scores / scores.sum(axis=1, keepdims=True), dtype=np.float32)


def unsure(pixels: Pixels) -> npt.NDArray[np.float32]:
    """The same answers, hardly believed."""
    return answered(pixels, doubt=2000)


@pytest.fixture(scope="module")
def halves(drawn_root: Path) -> tuple[Split, Pixels]:
    """Drawn faces to rehearse with, labelled as the network above sees most of them, and others to look at."""
    train = read_split(drawn_root / "splits", "train")
    truth = answered(train.pixels).argmax(axis=1)
    truth[::5] = (truth[::5] + 1) % 5
    first = slice(0, None, 2)
    return Split(train.pixels[first], truth[first], train.content_hashes[first]), train.pixels[1::2]


@pytest.fixture(scope="module")
def corruptions(halves: tuple[Split, Pixels]) -> pd.DataFrame:
    """What that network would log if these faces went bad."""
    table = corruption_profile(halves[0], answered)
    assert table is not None
    return table


def test_every_change_is_answered_for_the_same_faces(halves: tuple[Split, Pixels], corruptions: pd.DataFrame) -> None:
    """One row a face and change, the truth unchanged, and nothing but the faces themselves under `unchanged`."""
    val, table = halves[0], corruptions

    assert tuple(table.columns) == (*FEATURE_COLUMNS, TRUE_EMOTION_COLUMN, "change", "strength", "face")
    groups = dict(list(table.groupby(["change", "strength"], sort=False)))
    assert list(groups) == [(words, float(strength)) for words, strength in CORRUPTIONS]
    truth = groups[UNCHANGED, 0.0][TRUE_EMOTION_COLUMN].tolist()
    assert all(group[TRUE_EMOTION_COLUMN].tolist() == truth for group in groups.values())
    assert sorted(truth) == sorted(build_reference(val, answered(val.pixels))[TRUE_EMOTION_COLUMN])
    unchanged = groups[UNCHANGED, 0.0]["brightness"].to_numpy()
    assert np.allclose(
        np.sort(unchanged), np.sort(build_reference(val, answered(val.pixels))["brightness"].to_numpy()), atol=0.01
    )
    assert groups["darker", 0.5]["brightness"].mean() == pytest.approx(unchanged.mean() / 2, rel=0.02)


def test_few_faces_are_not_corrupted_with(halves: tuple[Split, Pixels]) -> None:
    """A cost that is measured on a handful of faces would be a guess."""
    val, _ = halves
    few = Split(val.pixels[: MIN_FACES - 1], val.class_indices[: MIN_FACES - 1], val.content_hashes[: MIN_FACES - 1])

    assert corruption_profile(few, answered) is None


def each(pixels: Pixels, change: Callable[[Image.Image], Image.Image]) -> Pixels:
    return np.stack([np.asarray(change(Image.fromarray(face))) for face in pixels])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda face: face.point(lambda gray: round(0.6 * gray)), "darker"),
        (lambda face: face.filter(ImageFilter.GaussianBlur(1.6)), "blurrier"),
        (lambda face: face.transpose(Image.Transpose.ROTATE_90), "turned to the side"),
        (lambda face: face.point(lambda gray: 255 - gray), "like negatives"),
    ],
    ids=["darker", "blurrier", "turned", "negative"],
)
def test_the_likeness_names_the_change(
    halves: tuple[Split, Pixels], corruptions: pd.DataFrame, change: Callable[[Image.Image], Image.Image], words: str
) -> None:
    """Other faces, changed by other means than the corruption profile's, look like the right change."""
    (val, others), table = halves, corruptions
    reference = build_reference(val, answered(val.pixels))
    pixels = each(others, change)
    current = feature_table(pixels, answered(pixels))

    assert CorruptionProfile(reference, table).attribution(current).changes[0] == words


@pytest.mark.parametrize(
    ("network", "is_harmful", "state"), [(answered, True, "prediction_drift"), (unsure, False, "input_drift")]
)
def test_what_a_change_costs_decides_whether_it_acts(
    halves: tuple[Split, Pixels],
    network: Callable[[Pixels], npt.NDArray[np.float32]],
    is_harmful: bool,
    state: str,
) -> None:
    """The same images act if answers that were believed are lost, and only warn where one was as good as another."""
    val, others = halves
    reference, table = build_reference(val, network(val.pixels)), corruption_profile(val, network)
    assert table is not None
    pixels = (255 - others).astype(np.uint8)
    current = feature_table(pixels, network(pixels))

    verdict = judge(current, reference, CorruptionProfile(reference, table))

    assert verdict.nearest_corruptions == ("like negatives",)
    assert verdict.has_prediction_drift
    assert verdict.state == state
    assert "images look like negatives" in verdict.cause
    assert verdict.expected_loss is not None
    assert (verdict.expected_loss > 0.2) is is_harmful


def test_a_cheap_change_does_not_excuse_what_else_happens(
    halves: tuple[Split, Pixels], corruptions: pd.DataFrame
) -> None:
    """Images that are dark and lie on their side look dark, which costs nothing; their answers say that it is more."""
    (val, others), table = halves, corruptions
    reference = build_reference(val, answered(val.pixels))
    dark = np.round(np.rot90(others, axes=(1, 2)) * 0.5).astype(np.uint8)
    probabilities = answered(np.ascontiguousarray(dark))
    probabilities[:, 3] = probabilities[:, 3] * 0.5 + 0.4
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    current = feature_table(dark, probabilities)

    verdict = judge(current, reference, CorruptionProfile(reference, table))

    assert "darker" in verdict.nearest_corruptions
    assert verdict.state == "prediction_drift"
    assert "changed more than that explains" in verdict.cause


def normal_faces(count: int, seed: int, shift: float = 0.0) -> pd.DataFrame:
    """Logged values of faces whose statistics, every second one, differ from others' by `shift` of their spread."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal(0, 1, (count, len(STATISTICS)))
    numbers[:, ::2] += shift
    said = rng.integers(0, len(EMOTIONS), count)
    beliefs = rng.uniform(0.05, 0.1, (count, len(EMOTIONS)))
    beliefs[np.arange(count), said] = 0.7
    table = pd.DataFrame(np.hstack([numbers, beliefs]), columns=list(FEATURE_COLUMNS[:-1]))
    table["emotion"] = [EMOTIONS[position] for position in said]
    return table.assign(**{TRUE_EMOTION_COLUMN: table["emotion"]})


def corrupted_with(num_faces: int, num_reference: int) -> tuple[pd.DataFrame, CorruptionProfile]:
    """A reference, and a corruption profile of one change that replaces four answers in five by others."""
    reference = normal_faces(num_reference, seed=0)
    same = reference.head(num_faces).assign(change=UNCHANGED, strength=0.0, face=np.arange(num_faces))
    harmful = normal_faces(num_faces, seed=1, shift=1.0)
    harmful = harmful.assign(change="like negatives", strength=1.0, face=np.arange(num_faces))
    return reference, CorruptionProfile(reference, pd.concat([same, harmful], ignore_index=True))


def with_strangers(count: int, fraction: float, seed: int) -> pd.DataFrame:
    """A window of faces, a fraction of them changed in the corrupted way."""
    num_strange = round(fraction * count)
    parts = [normal_faces(count - num_strange, seed), normal_faces(num_strange, seed + 1000, shift=1.0)]
    return pd.concat(parts, ignore_index=True)


def test_a_part_that_changed_at_great_cost_acts() -> None:
    """Three strange faces in ten are found, counted and priced, though their numbers are those of some faces."""
    reference, changes = corrupted_with(600, 2000)

    verdict = judge(with_strangers(100, 0.3, seed=5), reference, changes)

    assert verdict.part is not None
    assert verdict.part.change == "like negatives"
    assert verdict.part.fraction == pytest.approx(0.3, abs=0.12)
    assert verdict.part.loss == pytest.approx(0.3 * 0.8 * 0.6, abs=0.07)
    assert verdict.state == "prediction_drift"
    assert "of the images look like negatives" in verdict.cause
    assert verdict.as_record()["part"]["change"] == "like negatives"


def test_a_part_that_costs_little_is_only_told() -> None:
    """One strange face in twenty is seen in many images, and is not worth a retrain."""
    reference, changes = corrupted_with(600, 2000)

    verdict = judge(with_strangers(1000, 0.06, seed=5), reference, changes)

    assert verdict.part is not None
    assert verdict.part.loss < 0.06
    assert verdict.state in {"outliers", "input_drift"}


@pytest.mark.parametrize(("num_faces", "num_reference"), [(600, 2000), (100, 100)], ids=["many", "few"])
def test_no_part_is_found_without_one(num_faces: int, num_reference: int) -> None:
    """Faces that a distribution was fitted to resemble it more than others do; that must raise no alarm."""
    _, changes = corrupted_with(num_faces, num_reference)
    parts = [changes.part(with_strangers(200, 0.0, seed)) for seed in range(100)]

    assert sum(part is not None and part.p_value < 0.01 for part in parts) <= 4


def test_an_older_corruptions_finds_no_parts() -> None:
    """A bundle that does not say which faces it corrupted with is read, and only as a whole."""
    reference, _ = corrupted_with(600, 2000)
    same = reference.head(600).assign(change=UNCHANGED, strength=0.0)
    harmful = normal_faces(600, seed=1, shift=1.0).assign(change="like negatives", strength=1.0)
    changes = CorruptionProfile(reference, pd.concat([same, harmful], ignore_index=True))

    assert changes.part(with_strangers(200, 0.3, seed=5)) is None
    assert changes.attribution(with_strangers(200, 1.0, seed=5)).changes[0] == "like negatives"


def test_a_part_is_found_behind_another_mix_of_emotions() -> None:
    """Weights tell how many faces of that mix resemble a change, whatever rows the reference was cut to."""
    reference, changes = corrupted_with(600, 2000)
    weights = np.where(reference["emotion"] == "happy", 3.0, 0.5)

    found = changes.part(with_strangers(200, 0.3, seed=5), weights)
    none = [changes.part(with_strangers(200, 0.0, seed), weights) for seed in range(50)]

    assert found is not None
    assert found.p_value < 1e-6
    assert sum(part is not None and part.p_value < 0.01 for part in none) <= 3
