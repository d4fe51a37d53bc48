from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from emotion_assets.steps.feedback.accuracy import labelled_accuracy
from tests.steps.drift.helpers import write_label


def test_accuracy_needs_labels_and_has_an_interval(tmp_path: Path) -> None:
    """Fifteen of twenty labels agree: three quarters, with an interval around; fewer labels give no estimate."""
    table = pd.DataFrame({"prediction_id": [f"aa{i}" for i in range(40)], "emotion": ["happy"] * 40})
    table.assign(reason="random").to_csv(tmp_path / "random.csv")
    table.assign(prediction_id=[f"bb{i}" for i in range(40)], reason="outlier").to_csv(tmp_path / "outlier.csv")
    requests = {"2025-01-01": tmp_path / "random.csv", "2025-01-02": tmp_path / "outlier.csv"}
    feedback_dir = tmp_path / "feedback"
    for number in range(19):
        write_label(feedback_dir, f"aa{number}", "happy" if number < 15 else "sad")
        write_label(feedback_dir, f"bb{number}", "sad")
    few = labelled_accuracy(requests, feedback_dir)
    write_label(feedback_dir, "aa19", "fear")
    write_label(feedback_dir, "zz1", "fear")

    enough = labelled_accuracy(requests, feedback_dir)

    assert (few.num_labels, few.accuracy, few.low, few.high) == (19, None, None, None)
    assert (enough.num_labels, enough.accuracy) == (20, 0.75)
    assert enough.low is not None
    assert enough.high is not None
    assert 0.5 < enough.low < 0.75 < enough.high < 0.95


def test_a_class_may_be_called_none(tmp_path: Path) -> None:
    """And is no missing value."""
    table = pd.DataFrame({"prediction_id": [f"aa{i}" for i in range(20)], "emotion": "None", "reason": "random"})
    table.to_csv(tmp_path / "random.csv")
    for number in range(20):
        write_label(tmp_path / "feedback", f"aa{number}", "None")

    assert labelled_accuracy({"2025-01-01": tmp_path / "random.csv"}, tmp_path / "feedback").accuracy == 1


def test_unasked_corrections_do_not_bias_the_accuracy(tmp_path: Path) -> None:
    """Corrections given before the request are mistakes; the requested labels estimate the accuracy of the rest."""
    ids = [f"{number:02x}" for number in range(100)]
    request = tmp_path / "request.csv"
    pd.DataFrame({"prediction_id": ids, "emotion": "happy", "reason": "random"}).to_csv(request)
    for number in range(60):
        is_correction = number < 10
        emotion = "sad" if is_correction or number % 5 == 0 else "happy"
        write_label(tmp_path / "feedback", ids[number], emotion, f"2026-01-0{1 if is_correction else 3}T12:00:00")

    result = labelled_accuracy({"2026-01-02T00:00:00.000+00:00": request}, tmp_path / "feedback")

    assert result.num_labels == 60
    assert result.accuracy == pytest.approx(0.9 * 0.8)
    assert result.low is not None
    assert result.high is not None
    assert result.low < 0.72 < result.high <= 0.9


def test_labels_given_unasked_count_for_themselves(tmp_path: Path) -> None:
    """Ten confirmations and ten corrections before the request: half of that stratum is correct."""
    ids = [f"{number:02x}" for number in range(100)]
    request = tmp_path / "request.csv"
    pd.DataFrame({"prediction_id": ids, "emotion": "happy", "reason": "random"}).to_csv(request)
    for number in range(20):
        write_label(tmp_path / "feedback", ids[number], "sad" if number < 10 else "happy", "2026-01-01T12:00:00")
    for number in range(20, 39):
        write_label(tmp_path / "feedback", ids[number], "happy", "2026-01-03T12:00:00")
    requests = {"2026-01-02T00:00:00.000+00:00": request}
    few = labelled_accuracy(requests, tmp_path / "feedback")
    write_label(tmp_path / "feedback", ids[39], "happy", "2026-01-03T12:00:00")

    enough = labelled_accuracy(requests, tmp_path / "feedback")

    assert (few.num_labels, few.accuracy) == (39, None)
    assert (enough.num_labels, enough.accuracy) == (40, pytest.approx(0.1 + 0.8))


def test_the_first_request_of_a_prediction_counts(tmp_path: Path) -> None:
    """A window that is assessed again asks for the same images; labels given in between were requested."""
    ids = [f"{number:02x}" for number in range(20)]
    request = tmp_path / "request.csv"
    pd.DataFrame({"prediction_id": ids, "emotion": "happy", "reason": "random"}).to_csv(request)
    for name in ids:
        write_label(tmp_path / "feedback", name, "happy", "2026-01-02T12:00:00")

    found = labelled_accuracy({"2026-01-01T00:00:00": request, "2026-01-03T00:00:00": request}, tmp_path / "feedback")

    assert found.accuracy == 1
