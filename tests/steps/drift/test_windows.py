from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from emotion_assets.steps.drift.verdict import DriftState, DriftVerdict
from emotion_assets.steps.drift.windows import (
    VERDICT_NAME,
    ReportHistory,
    Source,
    Window,
    new_report_dir,
    next_window,
    record_notified,
)
from emotion_assets.steps.feedback.sampling import LABEL_REQUEST_CSV

CURRENT = pd.DataFrame({"time": ["2025-01-01T00:00:00.000+00:00", "2025-01-01T01:00:00.000+00:00"]})


def verdict(state: DriftState = DriftState.PREDICTION_DRIFT, p_value: float = 1e-4) -> DriftVerdict:
    return DriftVerdict(
        state=state, cause="", num_current=100, num_reference=1000, p_values={"emotion": p_value}, shifts={}
    )


def before(alarms_in_a_row: int = 0, *, is_incident: bool = False) -> dict[str, Any]:
    return {"since": "a", "until": "b", "alarms_in_a_row": alarms_in_a_row, "is_incident": is_incident}


def test_a_window_spans_its_predictions() -> None:
    """The times of the first and the last prediction; empty without any."""
    window = next_window(verdict(), CURRENT, None, is_new=True)

    assert (window.since, window.until) == tuple(CURRENT["time"])
    assert next_window(verdict(DriftState.TOO_FEW), CURRENT.head(0), None, is_new=False) == Window(is_new=False)


@pytest.mark.parametrize(
    ("earlier", "p_value", "alarms_in_a_row", "is_incident", "is_opened"),
    [
        (None, 1e-4, 1, False, False),
        (before(0), 1e-4, 1, False, False),
        (before(1), 1e-4, 2, True, True),
        (before(2, is_incident=True), 1e-4, 3, True, False),
        (None, 1e-9, 1, True, True),
    ],
    ids=["first window", "after none", "second", "third", "significant alone"],
)
def test_two_alarms_or_a_significant_one_open_an_incident(
    earlier: dict[str, Any] | None, p_value: float, alarms_in_a_row: int, is_incident: bool, is_opened: bool
) -> None:
    """An incident opens once."""
    window = next_window(verdict(p_value=p_value), CURRENT, earlier, is_new=True)

    assert (window.alarms_in_a_row, window.is_incident, window.is_opened) == (alarms_in_a_row, is_incident, is_opened)


@pytest.mark.parametrize("state", [state for state in DriftState if state != DriftState.PREDICTION_DRIFT])
def test_other_states_end_an_incident(state: DriftState) -> None:
    """Only prediction drift is an alarm."""
    window = next_window(verdict(state), CURRENT, before(3, is_incident=True), is_new=True)

    assert (window.alarms_in_a_row, window.is_incident) == (0, False)


def test_a_window_that_is_assessed_again_counts_once() -> None:
    """It keeps its times and its alarms, and opens no incident."""
    window = next_window(verdict(p_value=1e-9), CURRENT, before(1), is_new=False)

    assert window == Window(since="a", until="b", is_new=False, alarms_in_a_row=1)


def write_report(
    root: Path,
    name: str,
    *,
    version: str = "v1",
    source: str = "predictions",
    until: str = "b",
    is_incident: bool = True,
    is_opened: bool = False,
) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    window = {"until": until, "is_incident": is_incident, "is_opened": is_opened}
    (folder / VERDICT_NAME).write_text(json.dumps({"model_version": version, "source": source, "window": window}))
    return folder


def test_the_history_has_the_complete_reports_of_one_model(tmp_path: Path) -> None:
    """The newest first; reports of other models, incomplete ones and those from the future are skipped."""
    write_report(tmp_path, "20250101T000000000000")
    write_report(tmp_path, "20250102T000000000000", source="external", until="")
    write_report(tmp_path, "20250103T000000000000", version="v2")
    write_report(tmp_path, "20990101T000000000000")
    (tmp_path / "20250104T000000000000").mkdir()

    history = ReportHistory(tmp_path, "v1")

    assert [report.time for report in history.reports] == [
        "2025-01-02T00:00:00.000+00:00",
        "2025-01-01T00:00:00.000+00:00",
    ]
    assert [report.record["source"] for report in history.of(Source.EXTERNAL)] == ["external"]
    assert history.last_window() == {"until": "b", "is_incident": True, "is_opened": False}
    assert ReportHistory(tmp_path / "none", "v1").last_window() is None


def test_the_channels_of_the_open_incident_are_remembered(tmp_path: Path) -> None:
    """All channels since the incident opened count; those of an incident before a rollback do not."""
    record_notified(write_report(tmp_path, "20250101T000000000000"), ["earlier"])
    record_notified(write_report(tmp_path, "20250103T000000000000", is_opened=True), ["log"])
    write_report(tmp_path, "20250104T000000000000")
    record_notified(write_report(tmp_path, "20250105T000000000000"), ["slack-1"])

    assert ReportHistory(tmp_path, "v1").notified_channels() == {"log", "slack-1"}


def test_label_requests_are_found_by_time(tmp_path: Path) -> None:
    """Those of the open incident, the oldest first; reports without a request are skipped."""
    folders = [write_report(tmp_path, f"2025010{day}T000000000000", is_opened=day == 2) for day in range(1, 5)]
    for folder in (folders[0], folders[1], folders[3]):
        (folder / LABEL_REQUEST_CSV).touch()

    assert list(ReportHistory(tmp_path, "v1").label_requests().items()) == [
        ("2025-01-02T00:00:00.000+00:00", folders[1] / LABEL_REQUEST_CSV),
        ("2025-01-04T00:00:00.000+00:00", folders[3] / LABEL_REQUEST_CSV),
    ]
    write_report(tmp_path, "20250105T000000000000", is_incident=False)
    assert ReportHistory(tmp_path, "v1").label_requests() == {}


def test_a_new_report_is_the_newest(tmp_path: Path) -> None:
    """Its name is the time of the check, and sorts behind the earlier ones."""
    earlier = write_report(tmp_path, new_report_dir(tmp_path).name)
    later = write_report(tmp_path, new_report_dir(tmp_path).name)

    assert [report.folder for report in ReportHistory(tmp_path, "v1").reports] == [later, earlier]


def test_the_last_window_has_predictions(tmp_path: Path) -> None:
    """A check without any has none to continue from."""
    write_report(tmp_path, "20250101T000000000000", until="b")
    write_report(tmp_path, "20250102T000000000000", until="")

    window = ReportHistory(tmp_path, "v1").last_window()

    assert window is not None
    assert window["until"] == "b"


def test_a_window_that_ended_before_a_rollback_is_over(tmp_path: Path) -> None:
    """Those after it are not."""
    write_report(tmp_path, "20250102T000000000000", until="2025-01-02")
    history = ReportHistory(tmp_path, "v1")

    assert history.last_window("2025-01-01") == history.last_window()
    assert history.last_window("2025-01-03") is None


def test_an_incident_stays_open_while_nothing_is_new() -> None:
    window = next_window(verdict(), CURRENT, before(2, is_incident=True), is_new=False)

    assert window == Window(since="a", until="b", is_new=False, alarms_in_a_row=2, is_incident=True)
