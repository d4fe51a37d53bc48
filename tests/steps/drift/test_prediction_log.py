from __future__ import annotations

from pathlib import Path

import pytest

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.classifier import Classifier
from emotion_assets.core.features import feature_columns
from emotion_assets.steps.drift import prediction_log
from emotion_assets.steps.drift.prediction_log import LOG_COLUMNS, PredictionLogReader, predict_folder
from tests.steps.drift.helpers import random_window, write_segment


def test_malformed_lines_and_other_models_are_skipped(tmp_path: Path) -> None:
    """A last line cut by a kill, junk and other models' predictions do not count."""
    path = write_segment(tmp_path, random_window(5, seed=0))
    write_segment(tmp_path, random_window(3, seed=0), "v2", hour=1, host="b")
    path.write_text('{"half": \n' + "null\n[1]\n" + path.read_text()[:-40])

    log = PredictionLogReader(tmp_path, limit=100)

    table = log.latest("v1")
    assert len(table) == 4
    assert table["time"].is_monotonic_increasing
    assert tuple(table.columns) == LOG_COLUMNS
    assert len(log.latest()) == 7
    assert log.latest()["model_version"].value_counts().to_dict() == {"v1": 4, "v2": 3}


@pytest.mark.parametrize("rows_per_part", [7, 20_000])
def test_the_latest_predictions_are_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_per_part: int
) -> None:
    """The newest rows of all hours and workers are returned, however large the parts that files are read in."""
    monkeypatch.setattr(prediction_log, "ROWS_PER_PART", rows_per_part)
    write_segment(tmp_path, random_window(30, seed=0))
    for host in ("a", "b"):
        write_segment(tmp_path, random_window(5, seed=1), hour=1, host=host)

    assert [time[11:19] for time in PredictionLogReader(tmp_path, limit=12).latest("v1")["time"]] == [
        "00:00:28",
        "00:00:29",
        *(f"01:00:0{second}" for second in range(5) for _ in "ab"),
    ]
    assert [time[14:19] for time in PredictionLogReader(tmp_path, limit=2).latest("v1")["time"]] == ["00:04", "00:04"]


def test_predictions_of_the_future_are_skipped(tmp_path: Path) -> None:
    """Another host's clock may be ahead; its predictions do not push out the others."""
    write_segment(tmp_path, random_window(10, seed=0))
    write_segment(tmp_path, random_window(10, seed=0), year=2099)

    log = PredictionLogReader(tmp_path, limit=5, until="2025-01-01T00:00:07.000+00:00")

    assert [time[17:19] for time in log.latest("v1")["time"]] == ["03", "04", "05", "06", "07"]


def test_a_missing_log_or_segment_is_empty(tmp_path: Path) -> None:
    """A segment may be compacted between the listing and the reading."""
    assert len(PredictionLogReader(tmp_path / "none", limit=2).latest("v1")) == 0
    write_segment(tmp_path, random_window(3, seed=0))
    vanishing = write_segment(tmp_path, random_window(3, seed=0), hour=1)
    log = PredictionLogReader(tmp_path, limit=100)
    vanishing.unlink()

    assert len(log.latest("v1")) == 3


def test_a_folder_is_predicted_without_files_that_are_not_images(bundle_dir: Path, tmp_path: Path, face: bytes) -> None:
    """Readable images are predicted, others counted; without any image the table is empty."""
    (tmp_path / "b.txt").write_text("no")
    classifier = Classifier(bundle_dir)
    none, num_rejected = predict_folder(tmp_path, classifier)
    assert (len(none), num_rejected, list(none.columns)) == (0, 1, feature_columns(EMOTIONS))
    (tmp_path / "a.jpg").write_bytes(face)

    table, num_rejected = predict_folder(tmp_path, classifier)

    assert (len(table), num_rejected, list(table.columns)) == (1, 1, feature_columns(EMOTIONS))


def test_a_rare_model_is_found_behind_many_predictions(tmp_path: Path) -> None:
    """The search for one model's predictions leaves the latest of the others as they were."""
    write_segment(tmp_path, random_window(3, seed=0), "v2")
    for hour in range(1, 5):
        write_segment(tmp_path, random_window(20, seed=hour), hour=hour)
    log = PredictionLogReader(tmp_path, limit=30)

    assert len(log.latest("v2")) == 3
    assert log.latest().equals(PredictionLogReader(tmp_path, limit=30).latest())
    assert log.latest("v1").equals(log.latest())
    assert log.latest("v1")["time"].iloc[0] == "2025-01-01T03:00:10.000+00:00"
