"""Hold recent pictures against the accepted model's reference, window by window."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pandas as pd

from emotion_assets.core.bundle import REFERENCE_NAME, REHEARSAL_NAME
from emotion_assets.core.classifier import Classifier
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.files import write_atomically, write_json
from emotion_assets.core.logged_values import LOGGED_COLUMNS
from emotion_assets.steps.drift.feedback import (
    REQUEST_NAME,
    atypical_pictures,
    label_request,
    labelled_performance,
)
from emotion_assets.steps.drift.likeness import Rehearsal
from emotion_assets.steps.drift.oddness import Oddness
from emotion_assets.steps.drift.predictions import answer_folder, read_log
from emotion_assets.steps.drift.report import VERDICT_NAME, DriftSource, Window, write_drift_report
from emotion_assets.steps.drift.verdict import MIN_PICTURES, DriftVerdict, judge
from emotion_assets.steps.training.reference import rounded

WINDOW_PICTURES: Final = 500
"""More rows would only find harmless differences."""
ALARMS_OF_AN_INCIDENT: Final = 2
QUEUE_NAME: Final = "requested.json"

_TOLD_NAME: Final = "told.json"
_CLOCKS_DIFFER: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class DriftCheck:
    """A verdict, what it is about, and where its report lies."""

    verdict: DriftVerdict
    source: DriftSource
    window: Window
    report_dir: Path
    html_path: Path | None
    told_by: frozenset[str]
    """By what people were told of the incident that goes on, such as `webhook`."""


@dataclass(frozen=True, slots=True)
class DriftPlaces:
    """The folders that a check reads and writes."""

    predictions_dir: Path
    feedback_dir: Path
    unlabelled_dir: Path
    reports_dir: Path


def check_drift(bundle_dir: Path, places: DriftPlaces) -> DriftCheck:
    """Compare logged predictions, or `unlabelled/` while there are too few, with the reference.

    Windows do not overlap: what was judged before counts again only while fewer than 50 newer predictions are
    there, and then it is no new alarm. Two alarming windows in a row of one model make an incident; one is
    enough when it is beyond doubt.

    Raises:
        BundleMismatchError: the bundle is damaged.
        UnusableDataError: the model's reference lacks what is logged now.
    """
    classifier = Classifier(bundle_dir)
    reference = rounded(pd.read_parquet(bundle_dir / REFERENCE_NAME))
    if missing := sorted(set(LOGGED_COLUMNS) - set(reference.columns)):
        raise UnusableDataError(
            f"The reference of model {classifier.version} has no {', '.join(missing)}: it was made by older code. "
            "Train and accept a new model, then check again."
        )
    rehearsal_path = bundle_dir / REHEARSAL_NAME
    rehearsal = Rehearsal(reference, pd.read_parquet(rehearsal_path)) if rehearsal_path.exists() else None
    before = _last_window(places.reports_dir, classifier.version)
    # A host whose clock is ahead would end every window in the future, and none could begin after it.
    now = (datetime.now(UTC) + _CLOCKS_DIFFER).isoformat(timespec="milliseconds")
    # With the few that may have come since, all of the last window is still among them.
    logged = read_log(places.predictions_dir, classifier.version, WINDOW_PICTURES + MIN_PICTURES, now)
    mark = before["until"] if before and before["until"] <= now else ""
    fresh = logged[logged["time"] > mark].tail(WINDOW_PICTURES)
    is_new = len(fresh) >= MIN_PICTURES
    current = logged[logged["time"].between(before["since"], mark)] if before and mark and not is_new else fresh
    source = DriftSource("predictions", classifier.version)
    if len(logged) < MIN_PICTURES and places.unlabelled_dir.is_dir():
        current, num_refused = answer_folder(places.unlabelled_dir, classifier)
        source, is_new = DriftSource("unlabelled", classifier.version, num_refused), True
    verdict = judge(current, reference, rehearsal)
    window = _window(verdict, source, current, before, is_new=is_new)
    if source.kind == "predictions":
        requests = _requests(places.reports_dir, classifier.version)
        window.performance = labelled_performance(requests, places.feedback_dir)
    report_dir = places.reports_dir / "drift" / datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    if window.is_incident:
        requested = label_request(current, Oddness(reference).is_odd(current), places.predictions_dir)
        report_dir.mkdir(parents=True)
        write_atomically(report_dir / REQUEST_NAME, requested.to_csv(index=False))
        # Where the service's queue looks for it.
        rows = requested.drop(columns="picture").to_dict("records")
        write_json(places.feedback_dir / QUEUE_NAME, {"model_version": classifier.version, "predictions": rows})
    atypical = (
        atypical_pictures(current, Oddness(reference).is_odd(current), places.predictions_dir)
        if source.kind == "predictions" and verdict.state != "too_few"
        else []
    )
    html_path = write_drift_report(report_dir, current, reference, verdict, source, window, atypical)
    told_by = _told_by(places.reports_dir, classifier.version) if window.is_incident and not window.is_opened else ()
    return DriftCheck(verdict, source, window, report_dir, html_path, frozenset(told_by))


def note_told(check: DriftCheck, names: Collection[str]) -> None:
    """Keep by what people were told of an incident, so that whatever failed is tried again with the next check."""
    write_json(check.report_dir / _TOLD_NAME, sorted(names))


def _told_by(reports_dir: Path, version: str) -> set[str]:
    """Return by what people were told since the incident was opened."""
    told: set[str] = set()
    for path in sorted((reports_dir / "drift").glob(f"*/{VERDICT_NAME}"), reverse=True):
        record = json.loads(path.read_text())
        if record["source"] == "predictions" and record["model_version"] == version and record.get("window"):
            if not record["window"]["is_incident"]:
                break
            with contextlib.suppress(FileNotFoundError):
                told |= set(json.loads(path.with_name(_TOLD_NAME).read_text()))
    return told


def _window(
    verdict: DriftVerdict, source: DriftSource, current: pd.DataFrame, before: dict[str, Any] | None, *, is_new: bool
) -> Window:
    earlier = int(before["alarms_in_a_row"]) if before else 0
    if source.kind != "predictions":
        return Window("", "", is_new=True, alarms_in_a_row=0, is_incident=False)
    since, until = (str(current["time"].iloc[i]) for i in (0, -1)) if len(current) else ("", "")
    if not is_new:
        # Seen before: the same window must not count twice, nor move the mark.
        return Window(
            before["since"] if before else since,
            before["until"] if before else "",
            is_new=False,
            alarms_in_a_row=earlier,
            is_incident=bool(before and before["is_incident"]),
        )
    is_alarm = verdict.state == "answers_changed"
    in_a_row = earlier + 1 if is_alarm else 0
    is_incident = is_alarm and (in_a_row >= ALARMS_OF_AN_INCIDENT or verdict.is_sure)
    is_opened = is_incident and not (before and before["is_incident"])
    return Window(since, until, is_new=True, alarms_in_a_row=in_a_row, is_incident=is_incident, is_opened=is_opened)


def _last_window(reports_dir: Path, version: str) -> dict[str, Any] | None:
    """Return the record of the newest window of the log that was judged for this model."""
    for path in sorted((reports_dir / "drift").glob(f"*/{VERDICT_NAME}"), reverse=True):
        record = json.loads(path.read_text())
        window = record.get("window")
        if record["source"] == "predictions" and record["model_version"] == version and window and window["until"]:
            found: dict[str, Any] = window
            return found
    return None


def _requests(reports_dir: Path, version: str) -> list[Path]:
    """Return what earlier checks of this model asked people to label."""
    return [
        path.with_name(REQUEST_NAME)
        for path in sorted((reports_dir / "drift").glob(f"*/{VERDICT_NAME}"))
        if path.with_name(REQUEST_NAME).exists() and json.loads(path.read_text())["model_version"] == version
    ]


def newest_report(reports_dir: Path) -> Path | None:
    """Return the folder of the latest complete drift report; None while there is none."""
    complete = sorted(path.parent for path in (reports_dir / "drift").glob(f"*/{VERDICT_NAME}"))
    return complete[-1] if complete else None
