"""The windows of the prediction log that were assessed so far, from their reports below `reports/drift/`.

A report's folder is named by the time of its check; its `verdict.json` is written last.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import pandas as pd

from emotion_assets.core.files import write_json
from emotion_assets.steps.drift.verdict import DriftState, DriftVerdict
from emotion_assets.steps.feedback.accuracy import LabelledAccuracy
from emotion_assets.steps.feedback.sampling import LABEL_REQUEST_CSV

VERDICT_NAME: Final = "verdict.json"
NOTIFIED_NAME: Final = "notifications.json"
CLOCK_TOLERANCE: Final = timedelta(minutes=1)
"""Times further in the future than this come from a wrong clock."""
ALARMS_PER_INCIDENT: Final = 2

_FOLDER_TIME: Final = "%Y%m%dT%H%M%S%f"


class Source(StrEnum):
    """What was compared with the reference."""

    PREDICTIONS = "predictions"
    EXTERNAL = "external"
    """The folder of images of another source, while there are too few predictions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A part of the prediction log, and what it means after the windows before it."""

    since: str = ""
    until: str = ""
    """Times of the first and the last prediction, UTC; empty for a folder."""
    is_new: bool = True
    """False when it was assessed before, because too few predictions followed."""
    alarms_in_a_row: int = 0
    is_incident: bool = False
    """Whether to act: two alarms in a row, or one that is significant alone."""
    is_opened: bool = False
    """Whether the incident began with this window."""
    labelled: LabelledAccuracy | None = None


@dataclass(frozen=True, slots=True)
class PastReport:
    """A complete drift report of an earlier check."""

    folder: Path
    record: dict[str, Any]

    @property
    def time(self) -> str:
        """When the check was made, ISO 8601, UTC; empty if the folder is not named by a time."""
        try:
            moment = datetime.strptime(self.folder.name, _FOLDER_TIME).replace(tzinfo=UTC)
        except ValueError:
            return ""
        return moment.isoformat(timespec="milliseconds")


class ReportHistory:
    """The complete drift reports of one model, the newest first, each parsed once."""

    def __init__(self, drift_reports_dir: Path, version: str) -> None:
        """Read the reports. Those from the future are skipped: a clock may have been ahead for a while."""
        newest = (datetime.now(UTC) + CLOCK_TOLERANCE).strftime(_FOLDER_TIME)
        self.reports = [
            PastReport(path.parent, record)
            for path in sorted(drift_reports_dir.glob(f"*/{VERDICT_NAME}"), reverse=True)
            if path.parent.name <= newest and (record := json.loads(path.read_text()))["model_version"] == version
        ]

    def of(self, source: Source) -> Iterator[PastReport]:
        """Yield the reports on one kind of source."""
        return (report for report in self.reports if report.record["source"] == source)

    def last_window(self, since: str = "") -> dict[str, Any] | None:
        """Return the record of the newest window of the prediction log; None if it ended before `since`, or is none."""
        for report in self.of(Source.PREDICTIONS):
            window: dict[str, Any] = report.record["window"]
            if window["until"]:
                return window if window["until"] >= since else None
        return None

    def notified_channels(self) -> set[str]:
        """Return the channels that took the alert of the incident that is open."""
        channels: set[str] = set()
        for report in self._of_incident():
            with contextlib.suppress(FileNotFoundError):
                channels |= set(json.loads((report.folder / NOTIFIED_NAME).read_text()))
        return channels

    def label_requests(self) -> dict[str, Path]:
        """Return the CSV files of what people were asked to label in the open incident, by time, the oldest first."""
        found = {report.time: report.folder / LABEL_REQUEST_CSV for report in reversed([*self._of_incident()])}
        return {time: path for time, path in found.items() if path.exists()}

    def _of_incident(self) -> Iterator[PastReport]:
        """Yield the reports of the incident that is open, the newest first."""
        for report in self.of(Source.PREDICTIONS):
            if not report.record["window"]["is_incident"]:
                return
            yield report
            if report.record["window"]["is_opened"]:
                return


def new_report_dir(drift_reports_dir: Path) -> Path:
    """Return the folder for a check that is made now; it does not exist yet."""
    return drift_reports_dir / datetime.now(UTC).strftime(_FOLDER_TIME)


def record_notified(report_dir: Path, channels: list[str]) -> None:
    """Record which channels took the alert, so that the next check retries the others."""
    write_json(report_dir / NOTIFIED_NAME, sorted(channels))


def next_window(verdict: DriftVerdict, current: pd.DataFrame, before: dict[str, Any] | None, *, is_new: bool) -> Window:
    """Return the window of a verdict, after the window `before`.

    A window that was assessed before neither counts as another alarm nor moves the mark.
    """
    since, until = (str(current["time"].iloc[i]) for i in (0, -1)) if len(current) else ("", "")
    before = before or {"since": since, "until": "", "alarms_in_a_row": 0, "is_incident": False}
    if not is_new:
        kept = {name: before[name] for name in ("since", "until", "alarms_in_a_row", "is_incident")}
        return Window(**kept, is_new=False)
    is_alarm = verdict.state == DriftState.PREDICTION_DRIFT
    in_a_row = before["alarms_in_a_row"] + 1 if is_alarm else 0
    is_incident = is_alarm and (in_a_row >= ALARMS_PER_INCIDENT or verdict.is_significant)
    return Window(
        since=since,
        until=until,
        alarms_in_a_row=in_a_row,
        is_incident=is_incident,
        is_opened=is_incident and not before["is_incident"],
    )
