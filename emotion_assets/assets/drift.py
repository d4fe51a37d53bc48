"""The drift asset: recent images and predictions compared with those of the validation images.

The rules of the verdict are in `steps.drift.verdict`; what follows from it is in `automation`.
"""

from datetime import timedelta
from typing import TYPE_CHECKING

import dagster as dg

from emotion_assets.assets.evaluation import evaluation_report
from emotion_assets.assets.history import Highlight, with_history
from emotion_assets.assets.metadata import as_metadata
from emotion_assets.resources import PipelineSettings, Settings, code_version, uses_data
from emotion_assets.steps.drift.verdict import DriftState

if TYPE_CHECKING:
    from emotion_assets.steps.drift.check import DriftCheck

DAILY = dg.FreshnessPolicy.time_window(warn_window=timedelta(hours=26), fail_window=timedelta(hours=50))
"""Without a drift check there is no alarm, so the UI warns if none has run for 26 hours."""
_CHECKS = [
    dg.AssetCheckSpec("no_input_drift", asset="drift_report", description="Images resemble the validation images."),
    dg.AssetCheckSpec(
        "no_prediction_drift",
        asset="drift_report",
        description="Predictions are distributed as on the validation images.",
    ),
]


@dg.asset(
    kinds={"report"},
    code_version=code_version("drift", "feedback"),
    deps=[evaluation_report, "prediction_log", "external_images"],
    check_specs=_CHECKS,
    freshness_policy=DAILY,
)
@uses_data("models", "predictions", "external", writes=("reports/drift", "feedback"))
def drift_report(context: dg.AssetExecutionContext, settings: Settings) -> dg.MaterializeResult:  # type: ignore[type-arg]  # a check needs it bare
    """Whether recent images, or the model's predictions, differ from those of the validation images.

    Compares the latest 500 predictions since the last window, or `external/` while there are fewer than 50 of the
    deployed model. Two alarms in a row, or one that is significant alone, open an incident: people are alerted and
    asked for labels.
    """
    from emotion_assets.steps.drift.check import check_drift

    check = check_drift(settings.paths)
    metadata = as_metadata(check.summary(), settings)
    if check.window.is_incident:
        metadata["alert_sent_through"] = ", ".join(_alert(check, settings)) or "nothing new"
    verdict = check.verdict
    passed = (
        not verdict.has_input_drift,
        not verdict.has_prediction_drift and verdict.state != DriftState.PREDICTION_DRIFT,
    )
    results = [
        dg.AssetCheckResult(
            check_name=spec.name,
            passed=ok,
            severity=dg.AssetCheckSeverity.WARN,
            description="Nothing was compared." if verdict.state == DriftState.TOO_FEW else None,
            metadata={"cause": verdict.cause},
        )
        for spec, ok in zip(_CHECKS, passed, strict=True)
    ]
    incident = Highlight("is_incident", value=True, title="incident")
    metadata = with_history(
        context, metadata, ("prediction_distance", "expected_accuracy_loss"), unit="fraction", highlight=incident
    )
    return dg.MaterializeResult(metadata=metadata, check_results=results)


def _alert(check: "DriftCheck", settings: PipelineSettings) -> list[str]:
    """Alert people to an incident through every channel that did not take it before."""
    from emotion_assets.steps.drift.alerts import Alert, send_alert
    from emotion_assets.steps.drift.windows import VERDICT_NAME, record_notified

    alert = Alert(
        f"Predictions of {check.model_version} drifted ({check.verdict.severity}).",
        f"{check.verdict.cause} Please label the requested images.",
        settings.link(check.page or check.report_dir / VERDICT_NAME),
    )
    urls = [url.get_secret_value() for url in settings.alert_urls]
    channels = send_alert(alert, urls, check.notified_channels)
    if channels:
        record_notified(check.report_dir, channels)
    return channels
