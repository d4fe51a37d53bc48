"""The drift asset: recent images and answers beside those of the validation faces.

Reads the prediction log, or `external/` while that has fewer than 50 answers, and the accepted model's
reference; leaves a report. The rule of the verdict is in `steps.drift.verdict`, what follows from it in `automation`.
"""

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from emotion_assets.assets.evaluation import evaluation_report
from emotion_assets.assets.metadata import table
from emotion_assets.resources import Alerts, DataPaths, code_version

if TYPE_CHECKING:
    from emotion_assets.steps.drift.windows import DriftSource, Window

LOOKED_AT_DAILY = dg.FreshnessPolicy.time_window(warn_window=timedelta(hours=26), fail_window=timedelta(hours=50))
"""A drift check that nobody runs raises no alarm either: the UI says so a day after the schedule was due."""


@dg.asset(
    group_name="emotions",
    kinds={"report"},
    code_version=code_version("drift"),
    deps=[evaluation_report],
    freshness_policy=LOOKED_AT_DAILY,
)
def drift_report(context: dg.AssetExecutionContext, places: DataPaths, alerts: Alerts) -> dg.MaterializeResult[None]:
    """Whether recent images, or the model's answers to them, differ from what the model was validated on.

    Compares the latest 500 of the predictions since the last window, or `external/` while there are fewer than 50.
    Two alarms in a row, or one beyond doubt, open an incident: people are told, and asked for labels of the most
    telling images.
    """
    from emotion_assets.steps.drift.alerts import Alert, send_alert
    from emotion_assets.steps.drift.check import DataPaths, check_drift, deployed_model, record_notified
    from emotion_assets.steps.drift.windows import VERDICT_NAME
    from emotion_assets.steps.feedback.labels import REQUEST_NAME

    bundle_dir = deployed_model(places.registry, places.predictions_dir)
    if bundle_dir.name != (champion := places.registry.champion()):
        context.log.warning(
            "The service continues answering with %s though %s is accepted: this report is about its answers. "
            "Serve the newest bento, or set EMOTION_FOLLOW_CHAMPION=1.",
            bundle_dir.name,
            champion,
        )
    check = check_drift(
        bundle_dir,
        DataPaths(places.predictions_dir, places.feedback_dir, places.external_dir, places.reports_dir),
    )
    verdict, window = check.verdict, check.window
    metadata: dict[str, dg.RawMetadataValue] = {
        "state": verdict.state,
        "cause": verdict.cause,
        "severity": verdict.severity,
        "is_incident": window.is_incident,
        "alarms_in_a_row": window.alarms_in_a_row,
        "source": check.source.kind,
        "window": _span(window, check.source),
        "is_new_window": window.is_new,
        "model_version": check.source.model_version,
        "champion": champion or "none",
        "num_current": verdict.num_current,
        "num_reference": verdict.num_reference,
        "num_outliers": verdict.num_outliers,
        "nearest_corruptions": " or ".join(verdict.nearest_corruptions) or "nothing corrupted",
        **({} if verdict.expected_loss is None else {"expected_loss": verdict.expected_loss}),
        **(
            {}
            if verdict.part is None
            else {"subpopulation_corruption": verdict.part.change, "subpopulation_fraction": verdict.part.fraction}
        ),
        "has_input_drift": verdict.has_input_drift,
        "has_prediction_drift": verdict.has_prediction_drift,
        "verdict_file": dg.MetadataValue.path(check.report_dir / VERDICT_NAME),
    }
    if window.performance:
        metadata["num_labels"] = window.performance.num_labels
        if window.performance.accuracy is not None:
            metadata["labelled_accuracy"] = window.performance.accuracy
            metadata["labelled_accuracy_interval"] = f"{window.performance.low:.3f} to {window.performance.high:.3f}"
    if (check.report_dir / REQUEST_NAME).exists():
        metadata["sample_for_labelling"] = dg.MetadataValue.url(places.link(check.report_dir / REQUEST_NAME))
    if check.queue_problem:
        context.log.warning(check.queue_problem)
        metadata["queue_problem"] = check.queue_problem
    if window.is_incident:
        alert = Alert(
            f"Answers of {check.source.model_version} have changed ({verdict.severity}).",
            f"{verdict.cause} Please label the images of the request.",
            places.link(check.html_path or check.report_dir / VERDICT_NAME),
            check.source.model_version,
            verdict.severity,
        )
        notified_channels = send_alert(alert, alerts.targets(), context.log.warning, check.notified_channels)
        if notified_channels:
            record_notified(check, notified_channels)
            metadata["alert_sent_by"] = ", ".join(notified_channels)
    if check.html_path:
        metadata |= {
            "smallest_p_value": min(verdict.p_values.values()),
            "columns": table(
                [
                    {"column": name, "p value": p, "shift (reference deviations)": verdict.shifts.get(name, "")}
                    for name, p in sorted(verdict.p_values.items(), key=lambda item: item[1])
                ]
            ),
            "report": dg.MetadataValue.url(places.link(check.html_path)),
            "report_file": dg.MetadataValue.path(check.html_path),
        }
    return dg.MaterializeResult(metadata=metadata)


def _span(window: "Window", source: "DriftSource") -> str:
    if source.kind == "unlabelled":
        return "the folder"
    return f"{window.since} to {window.until}" if window.since else "no answers yet"


@dg.asset_check(asset=drift_report, description="Images look like the validation faces.")
def no_input_drift(places: DataPaths) -> dg.AssetCheckResult:
    """Warn when the images changed; accuracy need not suffer."""
    record = _newest(places)
    return _result(record, is_changed=record["has_input_drift"])


@dg.asset_check(asset=drift_report, description="The model's answers are spread as on the validation faces.")
def no_prediction_drift(places: DataPaths) -> dg.AssetCheckResult:
    """Warn when the answers changed, or when images look like a change that is known to spoil them."""
    record = _newest(places)
    return _result(record, is_changed=record["has_prediction_drift"] or record["state"] == "prediction_drift")


def _newest(places: DataPaths) -> dict[str, Any]:
    from emotion_assets.steps.drift.windows import VERDICT_NAME, newest_report

    report_dir = newest_report(places.reports_dir)
    if report_dir is None:
        raise dg.Failure("There is no drift report yet. Materialize drift_report first.")
    record: dict[str, Any] = json.loads((report_dir / VERDICT_NAME).read_text())
    return record


def _result(record: dict[str, Any], *, is_changed: bool) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=not is_changed,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"cause": record["cause"], "state": record["state"]},
    )
