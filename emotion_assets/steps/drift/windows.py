"""The windows of the log that were judged so far, from the reports that they left below `reports/drift/`.

A report's folder is named by the time of its check, and its `verdict.json` is written last.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from emotion_assets.steps.feedback.labels import REQUEST_NAME, LabelledAccuracy

VERDICT_NAME: Final = "verdict.json"
NOTIFIED_NAME: Final = "told.json"
CLOCKS_DIFFER: Final = timedelta(minutes=1)
"""What is later than this from now was written by a clock that was wrong."""

_FOLDER_TIME: Final = "%Y%m%dT%H%M%S%f"


@dataclass(frozen=True, slots=True)
class DriftSource:
    """What was compared with the reference."""

    kind: str
    """`predictions` (the service's log) or `unlabelled` (a folder of another source)."""
    model_version: str
    num_rejected: int = 0
    """Files of the folder that are no readable images."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of the log was judged, and what it means beside the windows before it."""

    since: str
    until: str
    """Times of the first and the last prediction, UTC; empty for a folder."""
    is_new: bool
    """False when it was judged before, because too few predictions came since."""
    alarms_in_a_row: int
    is_incident: bool
    """Whether somebody should act: two alarms in a row, or one beyond doubt."""
    is_opened: bool = False
    """Whether the incident began with this window; then people are told."""
    performance: LabelledAccuracy | None = None
    """How often people agreed with the answers that they labelled."""


def new_report_dir(reports_dir: Path) -> Path:
    """Return the folder of a check that is made now; it is not there yet."""
    return reports_dir / "drift" / datetime.now(UTC).strftime(_FOLDER_TIME)


def time_of(report_dir: Path) -> str:
    """Return when a report's check was made, ISO 8601, UTC; empty if the folder's name is none of ours."""
    try:
        moment = datetime.strptime(report_dir.name, _FOLDER_TIME).replace(tzinfo=UTC)
    except ValueError:
        return ""
    return moment.isoformat(timespec="milliseconds")


def past_verdicts(
    drift_dir: Path, version: str | None = None, kind: str | None = None
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield folder and record of every complete report, the newest first, of one model or kind of source if asked for.

    Reports of the future are skipped: a clock that was ahead for a while would rule until it is right.
    """
    newest = (datetime.now(UTC) + CLOCKS_DIFFER).strftime(_FOLDER_TIME)
    for path in sorted(drift_dir.glob(f"*/{VERDICT_NAME}"), reverse=True):
        if path.parent.name <= newest:
            record: dict[str, Any] = json.loads(path.read_text())
            if version in (None, record.get("model_version")) and kind in (None, record.get("source")):
                yield path.parent, record


def newest_report(reports_dir: Path) -> Path | None:
    """Return the folder of the latest complete drift report; None while there is none."""
    return next((folder for folder, _ in past_verdicts(reports_dir / "drift")), None)


def last_window(reports_dir: Path, version: str) -> dict[str, Any] | None:
    """Return the record of the newest window of the log that was judged for this model; None while there is none."""
    for _, record in past_verdicts(reports_dir / "drift", version, "predictions"):
        window: dict[str, Any] | None = record.get("window")
        if window and window["until"]:
            return window
    return None


def notified_channels(reports_dir: Path, version: str) -> set[str]:
    """Return by what people were told since the incident of this model was opened."""
    told: set[str] = set()
    for folder, record in past_verdicts(reports_dir / "drift", version, "predictions"):
        if record.get("window"):
            if not record["window"]["is_incident"]:
                break
            with contextlib.suppress(FileNotFoundError):
                told |= set(json.loads((folder / NOTIFIED_NAME).read_text()))
    return told


def requests(reports_dir: Path, version: str) -> dict[str, Path]:
    """Return what checks of this model asked people to label, by the time of the check, the oldest first."""
    found = {time_of(folder): folder / REQUEST_NAME for folder, _ in past_verdicts(reports_dir / "drift", version)}
    return {time: path for time, path in sorted(found.items()) if path.exists()}
