"""Hold recent images against the accepted model's reference, window by window."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pandas as pd

from emotion_assets.core.bundle import CORRUPTIONS_NAME, REFERENCE_NAME
from emotion_assets.core.classifier import Classifier
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.features import FEATURE_COLUMNS
from emotion_assets.core.files import write_atomically, write_json
from emotion_assets.core.layout import LABEL_REQUEST_NAME
from emotion_assets.steps.drift.attribution import CorruptionProfile
from emotion_assets.steps.drift.outliers import OutlierDetector
from emotion_assets.steps.drift.prediction_log import predict_folder, read_log
from emotion_assets.steps.drift.report import write_drift_report
from emotion_assets.steps.drift.verdict import MIN_IMAGES, DriftVerdict, judge
from emotion_assets.steps.drift.windows import (
    CLOCKS_DIFFER,
    NOTIFIED_NAME,
    DriftSource,
    Window,
    last_window,
    new_report_dir,
    notified_channels,
    requests,
)
from emotion_assets.steps.feedback.labels import (
    REQUEST_NAME,
    labelled_accuracy,
    most_informative_images,
    sample_for_labelling,
)
from emotion_assets.steps.reference.reference import rounded
from emotion_assets.steps.registry.registry import Registry

WINDOW_IMAGES: Final = 500
"""More rows would only find harmless differences."""
ALARMS_OF_AN_INCIDENT: Final = 2

_FOLLOWS_WITHIN: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class DriftCheck:
    """A verdict, what it is about, and where its report lies."""

    verdict: DriftVerdict
    source: DriftSource
    window: Window
    report_dir: Path
    html_path: Path | None
    notified_channels: frozenset[str]
    """By what people were told of the incident that continues, such as `webhook`."""
    queue_problem: str | None
    """Why people cannot label on the service's page what an incident asks for."""


@dataclass(frozen=True, slots=True)
class DataPaths:
    """The folders that a check reads and writes."""

    predictions_dir: Path
    feedback_dir: Path
    external_dir: Path
    reports_dir: Path


def deployed_model(registry: Registry, predictions_dir: Path) -> Path:
    """Return the bundle that the service answers with: the champion, unless the log shows another one.

    A container keeps the model that it was built with; once ten minutes have passed since the champion was accepted,
    the service does not follow it, and drift of what it does serve must not go unseen.

    Raises:
        MissingModelError: none was accepted yet.
    """
    champion_dir = registry.require_champion()
    since = registry.champion_since() + _FOLLOWS_WITHIN
    logged = read_log(predictions_dir, None, WINDOW_IMAGES, _now())
    counts = logged[logged["time"] > since.isoformat(timespec="milliseconds")]["model_version"].value_counts()
    others = [name for name, number in counts.items() if number >= MIN_IMAGES and name in registry.versions()]
    if others and counts.get(champion_dir.name, 0) < MIN_IMAGES:
        return registry.models_dir / str(others[0])
    return champion_dir


def check_drift(bundle_dir: Path, places: DataPaths) -> DriftCheck:
    """Compare logged predictions, or `external/` while there are too few, with the reference.

    Windows do not overlap: what was judged before counts again only while fewer than 50 newer predictions are
    there, and then it is no new alarm. Two alarming windows in a row of one model make an incident; one is
    enough when it is beyond doubt.

    Raises:
        BundleMismatchError: the bundle is damaged.
        UnusableDataError: the model's reference lacks what is logged now.
    """
    classifier = Classifier(bundle_dir)
    version = classifier.version
    reference = rounded(pd.read_parquet(bundle_dir / REFERENCE_NAME))
    if missing := sorted(set(FEATURE_COLUMNS) - set(reference.columns)):
        raise UnusableDataError(
            f"The reference of model {version} has no {', '.join(missing)}: it was made by older code. "
            "Train and accept a new model, then check again."
        )
    corruptions_path = bundle_dir / CORRUPTIONS_NAME
    corruptions = CorruptionProfile(reference, pd.read_parquet(corruptions_path)) if corruptions_path.exists() else None
    before = last_window(places.reports_dir, version)
    current, source, is_new = _current(classifier, places, before)
    verdict = judge(current, reference, corruptions)
    window = _window(verdict, source, current, before, is_new=is_new)
    report_dir = new_report_dir(places.reports_dir)
    most_informative: list[Path] = []
    queue_problem = None
    if source.kind == "predictions":
        performance = labelled_accuracy(requests(places.reports_dir, version), places.feedback_dir)
        window = dataclasses.replace(window, performance=performance)
    if source.kind == "predictions" and verdict.state != "too_few":
        is_outlier = OutlierDetector(reference).is_outlier(current)
        most_informative = most_informative_images(current, is_outlier, places.predictions_dir)
        if window.is_incident:
            requested = sample_for_labelling(current, is_outlier, places.predictions_dir)
            write_atomically(report_dir / REQUEST_NAME, requested.to_csv(index=False))
            # Before the verdict: whoever reads of an incident finds what it asks for.
            queue_problem = _queue(requested, places.feedback_dir, version)
    html_path = write_drift_report(report_dir, current, reference, verdict, source, window, most_informative)
    return DriftCheck(
        verdict,
        source,
        window,
        report_dir,
        html_path,
        notified_channels=frozenset(
            notified_channels(places.reports_dir, version) if window.is_incident and not window.is_opened else ()
        ),
        queue_problem=queue_problem,
    )


def _current(
    classifier: Classifier, places: DataPaths, before: dict[str, Any] | None
) -> tuple[pd.DataFrame, DriftSource, bool]:
    """Return what is to be judged, where it comes from, and whether it was not judged before."""
    # A host whose clock is ahead would end every window in the future, and none could begin after it.
    now = _now()
    # With the few that may have come since, all of the last window is still among them.
    logged = read_log(places.predictions_dir, classifier.version, WINDOW_IMAGES + MIN_IMAGES, now)
    if len(logged) < MIN_IMAGES and places.external_dir.is_dir():
        current, num_rejected = predict_folder(places.external_dir, classifier)
        return current, DriftSource("unlabelled", classifier.version, num_rejected), True
    source = DriftSource("predictions", classifier.version)
    mark = before["until"] if before and before["until"] <= now else ""
    fresh = logged[logged["time"] > mark].tail(WINDOW_IMAGES)
    is_new = len(fresh) >= MIN_IMAGES
    if before and mark and not is_new:
        return logged[logged["time"].between(before["since"], mark)], source, False
    return fresh, source, is_new


def _now() -> str:
    return (datetime.now(UTC) + CLOCKS_DIFFER).isoformat(timespec="milliseconds")


def _queue(requested: pd.DataFrame, feedback_dir: Path, version: str) -> str | None:
    """Put a request where the service's queue looks for it; return why that failed, or None."""
    path = feedback_dir / LABEL_REQUEST_NAME
    rows = requested.drop(columns="image").to_dict("records")
    try:
        write_json(path, {"model_version": version, "predictions": rows})
    except OSError as error:
        # The folder may be the service's alone; an incident must be told all the same.
        return f"{path} could not be written ({error.strerror}): /label does not offer what this incident asks for."
    return None


def record_notified(check: DriftCheck, names: Collection[str]) -> None:
    """Keep by what people were told of an incident, so that whatever failed is tried again with the next check."""
    write_json(check.report_dir / NOTIFIED_NAME, sorted(names))


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
    is_alarm = verdict.state == "prediction_drift"
    in_a_row = earlier + 1 if is_alarm else 0
    is_incident = is_alarm and (in_a_row >= ALARMS_OF_AN_INCIDENT or verdict.is_significant)
    is_opened = is_incident and not (before and before["is_incident"])
    return Window(since, until, is_new=True, alarms_in_a_row=in_a_row, is_incident=is_incident, is_opened=is_opened)
