"""Compare the predictions of the deployed model with its reference, window by window."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pandas as pd

from emotion_assets.core.classifier import Classifier
from emotion_assets.core.files import write_atomically, write_json
from emotion_assets.core.image_stats import STATISTICS
from emotion_assets.core.layout import LABEL_REQUEST_NAME, DataPaths
from emotion_assets.core.summary import Row, Summary, Value
from emotion_assets.steps.drift.prediction_log import PredictionLogReader, predict_folder
from emotion_assets.steps.drift.report import write_drift_report
from emotion_assets.steps.drift.verdict import MIN_IMAGES, DriftReference, DriftVerdict, assess
from emotion_assets.steps.drift.windows import (
    CLOCK_TOLERANCE,
    VERDICT_NAME,
    ReportHistory,
    Source,
    Window,
    new_report_dir,
    next_window,
)
from emotion_assets.steps.feedback.accuracy import labelled_accuracy
from emotion_assets.steps.feedback.labels import stored_images
from emotion_assets.steps.feedback.sampling import LABEL_REQUEST_CSV, most_informative_images, sample_for_labelling
from emotion_assets.steps.registry.registry import Registry

WINDOW_IMAGES: Final = 500
"""More would only detect harmless differences."""

_DEPLOYED_WITHIN: Final = timedelta(minutes=10)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftCheck:
    """A verdict, the window that it is about, and its report."""

    verdict: DriftVerdict
    window: Window
    source: Source
    model_version: str
    champion: str
    report_dir: Path
    page: Path | None
    """The HTML report; None where there were too few images."""
    notified_channels: set[str]
    """The channels that already took the alert of the open incident."""

    def summary(self) -> Summary:
        """Return what the asset shows."""
        verdict, window = self.verdict, self.window
        span = "the folder" if self.source == Source.EXTERNAL else f"{window.since} to {window.until}"
        values: dict[str, Value | None] = {
            "state": str(verdict.state),
            "cause": verdict.cause,
            "severity": str(verdict.severity),
            "is_incident": window.is_incident,
            "alarms_in_a_row": window.alarms_in_a_row,
            "source": str(self.source),
            "window": span if window.since or self.source == Source.EXTERNAL else "no predictions yet",
            "is_new_window": window.is_new,
            "model_version": self.model_version,
            "champion": self.champion,
            "num_current": verdict.num_current,
            "num_reference": verdict.num_reference,
            "num_outliers": verdict.num_outliers,
            "nearest_corruptions": " or ".join(verdict.nearest_corruptions) or "none",
            "expected_accuracy_loss": verdict.expected_accuracy_loss,
            "subpopulation": verdict.subpopulation.corruption if verdict.subpopulation else None,
            "subpopulation_fraction": verdict.subpopulation.fraction if verdict.subpopulation else None,
            "has_input_drift": verdict.has_input_drift,
            "has_prediction_drift": verdict.has_prediction_drift,
            "prediction_distance": max(
                (value for name, value in verdict.distances.items() if name not in STATISTICS), default=None
            ),
            "smallest_p_value": min(verdict.p_values.values(), default=None),
        }
        if window.labelled:
            values |= {f"labelled_{name}": value for name, value in dataclasses.asdict(window.labelled).items()}
        columns: list[Row] = [
            {"column": name, "p-value": p_value, "shift (reference deviations)": verdict.shifts.get(name, "")}
            for name, p_value in sorted(verdict.p_values.items(), key=lambda item: item[1])
        ]
        pages = {"report": self.page} if self.page else {}
        request = self.report_dir / LABEL_REQUEST_CSV
        return Summary(
            values={name: value for name, value in values.items() if value is not None},
            tables={"columns": columns} if columns else {},
            pages=pages | ({"label_request": request} if request.exists() else {}),
            files={"verdict": self.report_dir / VERDICT_NAME},
        )


def check_drift(paths: DataPaths) -> DriftCheck:
    """Compare the latest predictions, or `external/` while there are too few, with the deployed model's reference.

    Windows do not overlap: what was assessed before counts again only while fewer than 50 newer predictions follow, and
    then it is not a new alarm. Two alarms in a row for one model, or one that is significant alone, open an incident.
    After a rollback, what the model predicted before does not count.

    Raises:
        MissingModelError: no model has been accepted yet.
        BundleMismatchError: the bundle is damaged.
    """
    registry = Registry(paths.models)
    champion = registry.require_champion().name
    # A host whose clock is ahead would end every window in the future, and none could begin after it.
    now = (datetime.now(UTC) + CLOCK_TOLERANCE).isoformat(timespec="milliseconds")
    log = PredictionLogReader(paths.predictions, WINDOW_IMAGES + MIN_IMAGES, now)
    version = deployed_model(registry, log)
    classifier = Classifier(paths.models / version)
    reference = DriftReference.load(paths.models / version)
    history = ReportHistory(paths.drift_reports, version)
    report_dir = new_report_dir(paths.drift_reports)
    accepted_again = registry.accepted_again_at() if version == champion else None
    since = accepted_again.isoformat(timespec="milliseconds") if accepted_again else ""
    logged = log.latest(version, classifier.manifest.emotions)
    logged = logged[logged["time"] >= since]
    if len(logged) < MIN_IMAGES and paths.external.is_dir():
        current, num_rejected = predict_folder(paths.external, classifier)
        verdict, window, informative = assess(current, reference), Window(), []
        source = Source.EXTERNAL
    else:
        before = history.last_window(since)
        current, is_new = _next_predictions(logged, before, now)
        verdict, num_rejected, source = assess(current, reference), 0, Source.PREDICTIONS
        accuracy = labelled_accuracy(history.label_requests() if before else {}, paths.feedback)
        window = dataclasses.replace(next_window(verdict, current, before, is_new=is_new), labelled=accuracy)
        is_outlier, stored = reference.outliers.is_outlier(current), stored_images(paths.image_log)
        informative = most_informative_images(current, is_outlier, stored)
        if window.is_incident and len(current):
            _request_labels(sample_for_labelling(current, is_outlier, stored), report_dir, paths, version)
    record = {
        "schema_version": 2,
        "source": source,
        "model_version": version,
        "num_rejected": num_rejected,
        **dataclasses.asdict(verdict),
        "window": dataclasses.asdict(window),
    }
    return DriftCheck(
        verdict=verdict,
        window=window,
        source=source,
        model_version=version,
        champion=champion,
        report_dir=report_dir,
        page=write_drift_report(report_dir, record, current, reference.table, history, informative),
        notified_channels=history.notified_channels() if window.is_incident and not window.is_opened else set(),
    )


def deployed_model(registry: Registry, log: PredictionLogReader) -> str:
    """Return the version that the service predicts with: the champion, unless the log shows another one.

    A container keeps the model that it was built with. Once ten minutes have passed since the champion was accepted, a
    service that logs another version does not follow it, and its drift must not go unnoticed.
    """
    champion = registry.require_champion().name
    since = (registry.champion_since() + _DEPLOYED_WITHIN).isoformat(timespec="milliseconds")
    logged = log.latest().tail(WINDOW_IMAGES)
    counts = logged[logged["time"] > since]["model_version"].value_counts()
    versions = registry.versions()
    others = [str(name) for name, count in counts.items() if count >= MIN_IMAGES and name in versions]
    for name in counts.index.difference(versions):
        _logger.warning("A service predicts with %s, which is not among the models: its drift is not checked.", name)
    if not others or counts.get(champion, 0) >= MIN_IMAGES:
        return champion
    _logger.warning(
        "The service predicts with %s although %s is accepted; the drift report is about its predictions. Serve the "
        "newest bento, or set EMOTION_FOLLOW_CHAMPION=1.",
        others[0],
        champion,
    )
    return others[0]


def _next_predictions(logged: pd.DataFrame, before: dict[str, Any] | None, now: str) -> tuple[pd.DataFrame, bool]:
    """Return the predictions to assess, and whether they were not assessed before."""
    mark = before["until"] if before and before["until"] <= now else ""
    new = logged[logged["time"] > mark].tail(WINDOW_IMAGES)
    is_new = len(new) >= MIN_IMAGES
    if before and mark and not is_new:
        return logged[logged["time"].between(before["since"], mark)], False
    return new, is_new


def _request_labels(requested: pd.DataFrame, report_dir: Path, paths: DataPaths, version: str) -> None:
    """Write the request beside the report and where the service's label queue reads it, before the verdict."""
    write_atomically(report_dir / LABEL_REQUEST_CSV, requested.to_csv(index=False))
    path = paths.feedback / LABEL_REQUEST_NAME
    try:
        rows = requested.drop(columns="image").to_dict("records")
        write_json(path, {"model_version": version, "predictions": rows})
    except OSError as error:
        # The folder may belong to the service alone; the incident must be reported all the same.
        _logger.warning("%s could not be written (%s): /label does not offer these images.", path, error.strerror)
