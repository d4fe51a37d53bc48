from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from emotion_assets.steps.evaluation.scores import LabelledPredictions
from emotion_assets.steps.evaluation.subjects import score_subjects
from emotion_assets.steps.splits.splits import ASSIGNMENTS_NAME, Split


def make(root: Path, subjects: list[str | None], is_correct: list[bool]) -> tuple[LabelledPredictions, Split]:
    """Write a table of assignments; return predictions of five classes, right or wrong as told."""
    count = len(subjects)
    hashes = tuple(f"{number:064x}" for number in range(count))
    pd.DataFrame({"content_hash": hashes, "subject": subjects, "split": "test"}).to_parquet(root / ASSIGNMENTS_NAME)
    probabilities = np.eye(5, dtype=np.float32)[np.where(is_correct, 0, 1)]
    truth = np.zeros(count, dtype=np.int64)
    return LabelledPredictions("x", probabilities, truth), Split(np.zeros((count, 64, 64), np.uint8), truth, hashes)


def test_each_subject_has_its_accuracy(tmp_path: Path) -> None:
    """The lowest first; the mean counts each subject once."""
    predictions, split = make(tmp_path, ["a"] * 4 + ["b"] + [None], [True] * 3 + [False] + [False] + [True])

    scores = score_subjects(predictions, split, tmp_path)

    assert scores
    assert [(each.subject, each.num_images, each.accuracy) for each in scores.by_subject] == [
        ("b", 1, 0.0),
        ("a", 4, 0.75),
    ]
    assert scores.mean_accuracy == pytest.approx(0.375)


def test_the_interval_is_wider_than_that_of_images(tmp_path: Path) -> None:
    """Ten subjects of fifty equal answers say as much as ten images."""
    is_correct = np.repeat(np.arange(10) % 2 == 0, 50).tolist()
    predictions, split = make(tmp_path, [f"s{number // 50}" for number in range(500)], is_correct)

    scores = score_subjects(predictions, split, tmp_path)

    assert scores
    low, high = scores.interval
    assert low < 0.3
    assert high > 0.7


def test_subjects_that_do_not_differ_give_a_narrow_interval(tmp_path: Path) -> None:
    """The interval follows from how subjects differ, not from their number alone."""
    is_correct = [number % 5 > 0 for number in range(1000)]
    is_correct[0] = True  # or the variance would be 0
    predictions, split = make(tmp_path, [f"s{number // 100}" for number in range(1000)], is_correct)

    scores = score_subjects(predictions, split, tmp_path)

    assert scores
    assert scores.interval == pytest.approx((0.775, 0.825), abs=0.003)


@pytest.mark.parametrize("subjects", [[None, None], ["a", "a"], ["a", None]])
def test_without_two_subjects_there_are_no_scores(tmp_path: Path, subjects: list[str | None]) -> None:
    predictions, split = make(tmp_path, subjects, [True, False])

    assert score_subjects(predictions, split, tmp_path) is None
