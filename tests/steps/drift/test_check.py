from __future__ import annotations

import json
import logging
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from emotion_assets.core.bundle import read_manifest, write_manifest
from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.classifier import Classifier
from emotion_assets.core.errors import MissingModelError
from emotion_assets.core.layout import CHAMPION_NAME, LABEL_REQUEST_NAME, DataPaths
from emotion_assets.demo.faces import draw_face
from emotion_assets.steps.drift.check import DriftCheck, check_drift, deployed_model
from emotion_assets.steps.drift.prediction_log import PredictionLogReader, predict_folder
from emotion_assets.steps.drift.verdict import DriftState
from emotion_assets.steps.drift.windows import VERDICT_NAME, Source, record_notified
from emotion_assets.steps.feedback.sampling import LABEL_REQUEST_CSV
from emotion_assets.steps.registry.registry import Decision, Registry
from tests.steps.drift.helpers import (
    calibrated_window,
    make_root,
    random_window,
    slightly_drifted_window,
    write_label,
    write_segment,
)


@pytest.fixture
def paths(tmp_path: Path, bundle_dir: Path) -> DataPaths:
    """A data root whose champion has a reference of 1,000 rows, and no prediction yet."""
    return make_root(tmp_path, bundle_dir)


@pytest.fixture
def version(bundle_dir: Path) -> str:
    """The champion of `paths`."""
    return bundle_dir.name


def check_hours(paths: DataPaths, version: str, *windows: pd.DataFrame) -> list[DriftCheck]:
    """Log each window in its own hour, and check after each."""
    checks = []
    for hour, rows in enumerate(windows):
        write_segment(paths.predictions, rows, version, hour)
        checks.append(check_drift(paths))
    return checks


def test_predictions_are_preferred_to_the_external_folder(bundle_dir: Path, drawn_root: Path, tmp_path: Path) -> None:
    """Dim faces of another source are drift; faces like those of the reference, once logged, are not."""
    known, _ = predict_folder(drawn_root / "raw", Classifier(bundle_dir))
    known = known.sample(frac=1, random_state=0).assign(true_emotion=known["emotion"])
    paths = make_root(tmp_path, bundle_dir, known.head(120))
    paths.external.mkdir()
    for number in range(60):
        face = draw_face(EMOTIONS[number % 5], np.random.default_rng(number), is_dim=True)
        (paths.external / f"{number}.jpg").write_bytes(face)
    (paths.external / "notes.txt").write_text("no image")

    folder = check_drift(paths)
    write_segment(paths.predictions, known.tail(60), bundle_dir.name)
    log = check_drift(paths)

    assert (folder.source, log.source) == (Source.EXTERNAL, Source.PREDICTIONS)
    assert folder.verdict.state in {DriftState.INPUT_DRIFT, DriftState.PREDICTION_DRIFT}
    assert json.loads((folder.report_dir / VERDICT_NAME).read_text())["num_rejected"] == 1
    assert asdict(folder.summary())["values"]["window"] == "the folder"
    assert (log.verdict.state, log.verdict.num_current) == (DriftState.OK, 60)


def test_a_check_without_images_has_no_verdict(paths: DataPaths, version: str) -> None:
    """Before the first prediction there is a report that says so."""
    check = check_drift(paths)

    assert check.verdict.state == DriftState.TOO_FEW
    assert check.page is None
    values = asdict(check.summary())["values"]
    assert (values["state"], values["window"], values["model_version"]) == ("too_few", "no predictions yet", version)


def test_a_check_without_a_champion_is_an_error(tmp_path: Path) -> None:
    """The message says what to do first."""
    with pytest.raises(MissingModelError, match="retrain"):
        check_drift(DataPaths(tmp_path))


def test_two_alarms_in_a_row_open_an_incident(paths: DataPaths, version: str) -> None:
    """Windows do not overlap, one that is assessed again counts once, and one without drift ends the incident."""
    checks = []
    for hour, rows in enumerate(
        [slightly_drifted_window(120, 1), slightly_drifted_window(120, 2), calibrated_window(120, 3)]
    ):
        write_segment(paths.predictions, rows, version, hour)
        checks += [check_drift(paths), check_drift(paths)]

    drift, ok = DriftState.PREDICTION_DRIFT, DriftState.OK
    assert [check.verdict.state for check in checks[::2]] == [drift, drift, ok]
    assert [check.window.alarms_in_a_row for check in checks] == [1, 1, 2, 2, 0, 0]
    assert [check.window.is_incident for check in checks] == [False, False, True, True, False, False]
    assert [check.window.is_opened for check in checks] == [False, False, True, False, False, False]
    assert [check.window.is_new for check in checks] == [True, False] * 3
    assert {check.verdict.num_current for check in checks} == {120}


def test_a_model_that_is_accepted_again_begins_anew(paths: DataPaths, version: str) -> None:
    """After a rollback, or by force, an incident of old is over: one alarm opens none, two open one that people are alerted to.

    What was predicted before counts no more, even if it was not assessed.
    """
    for hour in (0, 1):
        write_segment(paths.predictions, slightly_drifted_window(120, hour), version, hour)
        assert check_drift(paths).window.is_incident == (hour == 1)
    write_segment(paths.predictions, slightly_drifted_window(120, 4), version, hour=1, second=600)
    Registry(paths.models).record(Decision(candidate="another", is_accepted=True, reasons=[]))
    Registry(paths.models).record(Decision(candidate=version, is_accepted=True, reasons=[], force_reason="better"))
    path = paths.models / "champion.json"
    record = json.loads(path.read_text())
    record["history"][-1]["at"] = "2025-01-01T01:30:00+00:00"
    path.write_text(json.dumps(record))

    checks = [check_drift(paths)]
    for hour in (2, 3):
        write_segment(paths.predictions, slightly_drifted_window(120, hour), version, hour)
        checks.append(check_drift(paths))

    assert [check.verdict.num_current for check in checks] == [0, 120, 120]
    assert [check.window.alarms_in_a_row for check in checks] == [0, 1, 2]
    assert [check.window.is_opened for check in checks] == [False, False, True]


def test_an_open_incident_without_predictions_asks_for_no_other_labels(paths: DataPaths, version: str) -> None:
    """After their retention, the queue of labels stays as it is."""
    check_hours(paths, version, slightly_drifted_window(120, 1), slightly_drifted_window(120, 2))
    queue = (paths.feedback / LABEL_REQUEST_NAME).read_text()
    shutil.rmtree(paths.predictions)

    assert check_drift(paths).window.is_incident
    assert (paths.feedback / LABEL_REQUEST_NAME).read_text() == queue


def test_an_incident_asks_for_labels(paths: DataPaths, version: str) -> None:
    """The request stands beside the report and where the service reads it; half of it is random."""
    check = check_hours(paths, version, slightly_drifted_window(120, 1), slightly_drifted_window(120, 2))[1]

    request = pd.read_csv(check.report_dir / LABEL_REQUEST_CSV)
    assert len(request) == request["prediction_id"].nunique() == 100
    assert set(request["reason"]) <= {"random", "outlier", "uncertain"}
    assert (request["reason"] == "random").sum() == 50
    queue = json.loads((paths.feedback / LABEL_REQUEST_NAME).read_text())
    assert queue["model_version"] == version
    assert [row["prediction_id"] for row in queue["predictions"]] == request["prediction_id"].tolist()
    assert check.summary().pages["label_request"] == check.report_dir / LABEL_REQUEST_CSV


def test_a_summary_has_the_verdict_and_the_columns(paths: DataPaths, version: str) -> None:
    """Columns are sorted by p-value; values that do not apply are left out."""
    (check,) = check_hours(paths, version, slightly_drifted_window(120, 1))

    summary = check.summary()

    values = asdict(summary)["values"]
    assert values["state"] == "prediction_drift"
    assert values["cause"] == check.verdict.cause
    assert values["window"] == "2025-01-01T00:00:00.000+00:00 to 2025-01-01T00:01:59.000+00:00"
    assert values["labelled_num_labels"] == 0
    assert "labelled_accuracy" not in values
    p_values = [row["p-value"] for row in summary.tables["columns"]]
    assert p_values == sorted(check.verdict.p_values.values())
    assert values["smallest_p_value"] == p_values[0]
    assert summary.pages == {"report": check.page}
    assert summary.files == {"verdict": check.report_dir / VERDICT_NAME}


def test_a_clock_that_is_ahead_does_not_hide_later_windows(paths: DataPaths, version: str) -> None:
    """Neither a prediction from the future nor a window that ended there hides what comes until then."""
    write_segment(paths.predictions, calibrated_window(1, 9), version, year=2099)
    (first,) = check_hours(paths, version, calibrated_window(120, 1))
    record = json.loads((first.report_dir / VERDICT_NAME).read_text())
    record["window"]["until"] = "2099-01-01T00:00:00.000+00:00"
    (first.report_dir / VERDICT_NAME).write_text(json.dumps(record))
    write_segment(paths.predictions, slightly_drifted_window(120, 2), version, hour=1)

    second = check_drift(paths)

    assert (first.verdict.num_current, first.window.until[:4]) == (120, "2025")
    assert second.window.is_new
    assert second.window.until.startswith("2025-01-01T01")


def test_a_report_of_the_future_is_ignored(paths: DataPaths, version: str) -> None:
    """A clock that was ahead for a while must not hide what is assessed since."""
    (check,) = check_hours(paths, version, slightly_drifted_window(120, 1))
    check.report_dir.rename(check.report_dir.with_name("20990101T000000000000"))

    assert check_drift(paths).window.is_new


def test_a_window_that_is_assessed_again_is_the_same(paths: DataPaths, version: str) -> None:
    """Neither earlier windows nor the few images since belong to it, or to the label request."""
    windows = [calibrated_window(300, 3), slightly_drifted_window(120, 1), slightly_drifted_window(120, 2)]
    check = check_hours(paths, version, *windows, calibrated_window(20, 4))[-1]

    assert (check.window.is_new, check.window.is_incident, check.verdict.num_current) == (False, True, 120)
    assert check.window.since.startswith("2025-01-01T02")
    assert check.verdict.state == DriftState.PREDICTION_DRIFT
    request = pd.read_csv(check.report_dir / LABEL_REQUEST_CSV)
    assert request["prediction_id"].str.contains("20250101T02").all()


def test_an_incident_is_reported_though_the_label_queue_cannot_be_written(
    paths: DataPaths, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The folder of labels may belong to the service alone; the verdict stands, and the log says what is missing."""
    paths.feedback.write_text("a file in its place")

    check = check_hours(paths, version, slightly_drifted_window(120, 0), slightly_drifted_window(120, 1))[-1]

    assert check.window.is_incident
    assert f"feedback/{LABEL_REQUEST_NAME} could not be written" in caplog.text
    assert (check.report_dir / LABEL_REQUEST_CSV).exists()
    assert json.loads((check.report_dir / VERDICT_NAME).read_text())["window"]["is_incident"]


def test_the_deployed_model_is_found_in_the_log(
    bundle_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A container keeps its own model; a service that follows the champion logs no earlier one any more."""
    paths, registry = DataPaths(tmp_path), Registry(tmp_path / "models")
    earlier, later = "20241231-000000-00000001", "20250101-000000-00000002"
    for name in (earlier, later):
        folder = Path(shutil.copytree(bundle_dir, paths.models / name))
        write_manifest(folder, replace(read_manifest(folder), version=name))
    accepted = [
        {"at": f"2025-01-01T0{hour}:00:00+00:00", "candidate": name, "is_accepted": True}
        for hour, name in enumerate((earlier, later))
    ]
    record = {"schema_version": 1, "version": later, "history": accepted}
    (paths.models / CHAMPION_NAME).write_text(json.dumps(record))

    def deployed() -> str:
        return deployed_model(registry, PredictionLogReader(paths.predictions, limit=500))

    assert deployed() == later
    # Before the later one was accepted, and within the minutes that a service takes to follow.
    for hour in (0, 1):
        write_segment(paths.predictions, random_window(100, 1), earlier, hour)
    assert deployed() == later

    write_segment(paths.predictions, random_window(100, 1), earlier, hour=2)
    assert deployed() == earlier
    with caplog.at_level(logging.WARNING):
        check = check_drift(paths)
    assert (check.model_version, check.champion) == (earlier, later)
    assert f"The service predicts with {earlier} although {later} is accepted" in caplog.text

    shutil.rmtree(paths.models / earlier)
    assert deployed() == later
    assert f"A service predicts with {earlier}, which is not among the models" in caplog.text

    write_segment(paths.predictions, random_window(60, 1), later, hour=3)
    assert deployed() == later


def test_an_alert_is_due_until_it_was_delivered(paths: DataPaths, version: str) -> None:
    """A run that dies before it alerts leaves an incident that nobody knows of."""
    seen = []
    for hour in range(4):
        write_segment(paths.predictions, slightly_drifted_window(120, hour), version, hour)
        check = check_drift(paths)
        seen.append((check.window.is_incident, set(check.notified_channels)))
        if hour == 2:
            record_notified(check.report_dir, ["log", "slack-1"])

    assert seen == [(False, set()), (True, set()), (True, set()), (True, {"log", "slack-1"})]


def test_the_accuracy_on_requested_labels_is_reported(paths: DataPaths, version: str) -> None:
    """On those drawn at random, with its interval, as long as the incident is open."""
    incident = check_hours(paths, version, slightly_drifted_window(120, 1), slightly_drifted_window(120, 2))[1]
    request = pd.read_csv(incident.report_dir / LABEL_REQUEST_CSV)
    request = request.sort_values("reason", key=lambda reason: reason != "random")
    for number, row in enumerate(request.itertuples()):
        wrong = EMOTIONS[(EMOTIONS.index(str(row.emotion)) + 1) % 5]
        write_label(paths.feedback, str(row.prediction_id), str(row.emotion) if number < 30 else wrong, "2099-01-01")

    check = check_drift(paths)
    write_segment(paths.predictions, calibrated_window(120, 3), version, hour=3)
    last, later = check_drift(paths), check_drift(paths)

    accuracy = json.loads((check.report_dir / VERDICT_NAME).read_text())["window"]["labelled"]
    assert (accuracy["num_labels"], accuracy["accuracy"]) == (50, 0.6)
    assert accuracy["low"] < 0.6 < accuracy["high"]
    assert asdict(check.summary())["values"]["labelled_accuracy"] == 0.6
    assert [each.window.labelled.num_labels for each in (last, later) if each.window.labelled] == [50, 0]
