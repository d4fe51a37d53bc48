"""Known changes are rehearsed before a model serves; later they name the cause of drift and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image, ImageFilter

from emotion_assets.core.images import Pixels
from emotion_assets.core.logged_values import LOGGED_COLUMNS
from emotion_assets.steps.data.split import Split, read_split
from emotion_assets.steps.drift.likeness import Rehearsal
from emotion_assets.steps.drift.verdict import judge
from emotion_assets.steps.training.reference import TRUTH_COLUMN, logged_table, reference_table
from emotion_assets.steps.training.rehearsal import CHANGES, MIN_FACES, UNCHANGED, rehearsed


def answered(pixels: Pixels) -> npt.NDArray[np.float32]:
    """What a network would say that looks for light in five bands, brightest first."""
    bands = pixels[:, 2:62].reshape(len(pixels), 5, 12, 64).mean(axis=(2, 3)).astype(np.float32)
    scores = np.exp((bands - bands.mean(axis=1, keepdims=True)) / np.float32(20))
    return np.asarray(scores / scores.sum(axis=1, keepdims=True), dtype=np.float32)


@pytest.fixture(scope="module")
def halves(drawn_root: Path) -> tuple[Split, Pixels]:
    """Drawn faces to rehearse with, labelled as the network above sees most of them, and others to look at."""
    train = read_split(drawn_root / "splits", "train")
    truth = answered(train.pixels).argmax(axis=1)
    truth[::5] = (truth[::5] + 1) % 5
    first = slice(0, None, 2)
    return Split(train.pixels[first], truth[first], train.content_hashes[first]), train.pixels[1::2]


@pytest.fixture(scope="module")
def rehearsal(halves: tuple[Split, Pixels]) -> pd.DataFrame:
    """What that network would log if these faces went bad."""
    table = rehearsed(halves[0], answered)
    assert table is not None
    return table


def test_every_change_is_answered_for_the_same_faces(halves: tuple[Split, Pixels], rehearsal: pd.DataFrame) -> None:
    """One row a face and change, the truth unchanged, and nothing but the faces themselves under `unchanged`."""
    val, table = halves[0], rehearsal

    assert tuple(table.columns) == (*LOGGED_COLUMNS, TRUTH_COLUMN, "change", "strength")
    groups = dict(list(table.groupby(["change", "strength"], sort=False)))
    assert list(groups) == [(words, float(strength)) for words, strength in CHANGES]
    truth = groups[UNCHANGED, 0.0][TRUTH_COLUMN].tolist()
    assert all(group[TRUTH_COLUMN].tolist() == truth for group in groups.values())
    assert sorted(truth) == sorted(reference_table(val, answered(val.pixels))[TRUTH_COLUMN])
    unchanged = groups[UNCHANGED, 0.0]["brightness"].to_numpy()
    assert np.allclose(
        np.sort(unchanged), np.sort(reference_table(val, answered(val.pixels))["brightness"].to_numpy()), atol=0.01
    )
    assert groups["darker", 0.5]["brightness"].mean() == pytest.approx(unchanged.mean() / 2, rel=0.02)


def test_few_faces_are_not_rehearsed_with(halves: tuple[Split, Pixels]) -> None:
    """A cost that is measured on a handful of faces would be a guess."""
    val, _ = halves
    few = Split(val.pixels[: MIN_FACES - 1], val.class_indices[: MIN_FACES - 1], val.content_hashes[: MIN_FACES - 1])

    assert rehearsed(few, answered) is None


def each(pixels: Pixels, change: Callable[[Image.Image], Image.Image]) -> Pixels:
    return np.stack([np.asarray(change(Image.fromarray(face))) for face in pixels])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda face: face.point(lambda grey: round(0.6 * grey)), "darker"),
        (lambda face: face.filter(ImageFilter.GaussianBlur(1.6)), "blurrier"),
        (lambda face: face.transpose(Image.Transpose.ROTATE_90), "turned to the side"),
        (lambda face: face.point(lambda grey: 255 - grey), "like negatives"),
    ],
    ids=["darker", "blurrier", "turned", "negative"],
)
def test_the_likeness_names_the_change(
    halves: tuple[Split, Pixels], rehearsal: pd.DataFrame, change: Callable[[Image.Image], Image.Image], words: str
) -> None:
    """Other faces, changed by other means than the rehearsal's, look like the right change."""
    (val, others), table = halves, rehearsal
    reference = reference_table(val, answered(val.pixels))
    pixels = each(others, change)
    current = logged_table(pixels, answered(pixels))

    assert Rehearsal(reference, table).likeness(current).changes[0] == words


def with_cost(table: pd.DataFrame, change: str, is_right: npt.NDArray[np.bool_]) -> pd.DataFrame:
    """The rehearsal, as if this change had cost what `is_right` says."""
    table = table.copy()
    rows = (table["change"] == change).to_numpy()
    wrong = np.where(table["emotion"] == "sad", "angry", "sad")
    repeated = np.resize(is_right, rows.sum())
    table.loc[rows, TRUTH_COLUMN] = np.where(repeated, table["emotion"][rows], wrong[rows])
    return table


@pytest.mark.parametrize(("is_dear", "state"), [(True, "answers_changed"), (False, "inputs_changed")])
def test_what_a_change_costs_decides_whether_it_acts(
    halves: tuple[Split, Pixels], rehearsal: pd.DataFrame, is_dear: bool, state: str
) -> None:
    """The same pictures act if such pictures cost accuracy when it was rehearsed, and only warn if they did not."""
    (val, others), table = halves, rehearsal
    reference = reference_table(val, answered(val.pixels))
    was_right = (table["emotion"] == table[TRUTH_COLUMN])[table["change"] == UNCHANGED].to_numpy()
    is_right = was_right & (np.arange(len(was_right)) % 2 == 0) if is_dear else was_right
    table = with_cost(table, "like negatives", is_right)
    pixels = (255 - others).astype(np.uint8)
    current = logged_table(pixels, answered(pixels))

    verdict = judge(current, reference, Rehearsal(reference, table))

    assert verdict.looks_like == ("like negatives",)
    assert verdict.has_answer_change
    assert verdict.state == state
    assert "pictures look like negatives" in verdict.cause
    assert verdict.expected_loss is not None
    assert (verdict.expected_loss > 0.2) is is_dear


def test_a_cheap_change_does_not_excuse_what_else_happens(
    halves: tuple[Split, Pixels], rehearsal: pd.DataFrame
) -> None:
    """Pictures that are dark and lie on their side look dark, which costs nothing; their answers say that it is more."""
    (val, others), table = halves, rehearsal
    reference = reference_table(val, answered(val.pixels))
    dark = np.round(np.rot90(others, axes=(1, 2)) * 0.5).astype(np.uint8)
    probabilities = answered(np.ascontiguousarray(dark))
    probabilities[:, 3] = probabilities[:, 3] * 0.5 + 0.4
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    current = logged_table(dark, probabilities)
    was_right = np.ones(1, dtype=bool)

    verdict = judge(current, reference, Rehearsal(reference, with_cost(table, "darker", was_right)))

    assert "darker" in verdict.looks_like
    assert verdict.state == "answers_changed"
    assert "changed more than that explains" in verdict.cause


def test_what_was_never_rehearsed_acts_by_the_answers(halves: tuple[Split, Pixels], rehearsal: pd.DataFrame) -> None:
    """Pictures like nothing that was rehearsed act when the answers changed, whatever is nearest."""
    val, table = halves[0], rehearsal
    reference = reference_table(val, answered(val.pixels))
    down, across = np.indices((64, 64))
    rng = np.random.default_rng(0)
    waves = [127 + 120 * np.sin(across * rng.uniform(1, 2) + down * rng.uniform(0, 0.2)) for _ in range(80)]
    pixels = np.stack(waves).astype(np.uint8)
    pixels[:, 2:14] = 255
    current = logged_table(pixels, answered(pixels))

    verdict = judge(current, reference, Rehearsal(reference, table))

    assert verdict.looks_like == ()
    assert verdict.state == "answers_changed"
