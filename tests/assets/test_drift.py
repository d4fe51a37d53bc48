from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from emotion_assets.assets.drift import drift_report
from emotion_assets.core.summary import Summary
from emotion_assets.resources import PipelineSettings
from emotion_assets.steps.drift import check as drift_check


def fake_check(settings: PipelineSettings, *, is_incident: bool = False, **verdict: Any) -> SimpleNamespace:
    report_dir = settings.paths.drift_reports / "20260101T000000000000"
    report_dir.mkdir(parents=True, exist_ok=True)
    return SimpleNamespace(
        verdict=SimpleNamespace(cause="something.", severity="clear", **verdict),
        window=SimpleNamespace(is_incident=is_incident),
        model_version="v",
        page=None,
        report_dir=report_dir,
        notified_channels=frozenset(),
        summary=lambda: Summary(values={"state": verdict["state"]}),
    )


@pytest.mark.parametrize(
    ("state", "has_input_drift", "has_prediction_drift", "expected"),
    [
        ("ok", False, False, [True, True]),
        ("input_drift", True, False, [False, True]),
        ("label_shift", False, True, [True, False]),
        ("prediction_drift", True, True, [False, False]),
        # A known harmful corruption is acted on before the predictions have moved significantly.
        ("prediction_drift", True, False, [False, False]),
    ],
)
def test_what_is_acted_on_never_passes(
    settings: PipelineSettings,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    has_input_drift: bool,
    has_prediction_drift: bool,
    expected: list[bool],
) -> None:
    """Each check follows its tier, and the one on predictions follows the alarm, too."""
    found = fake_check(
        settings, state=state, has_input_drift=has_input_drift, has_prediction_drift=has_prediction_drift
    )
    monkeypatch.setattr(drift_check, "check_drift", lambda _: found)

    result = dg.materialize([drift_report], resources={"settings": settings})

    checks = result.get_asset_check_evaluations()
    assert [check.passed for check in sorted(checks, key=lambda check: check.check_name)] == expected
    assert {check.severity for check in checks} == {dg.AssetCheckSeverity.WARN}


def test_an_incident_alerts_once(
    settings: PipelineSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log always takes the alert; what took it is recorded for the next check."""
    state = {"state": "prediction_drift", "has_input_drift": True, "has_prediction_drift": True}
    found = fake_check(settings, is_incident=True, **state)
    monkeypatch.setattr(drift_check, "check_drift", lambda _: found)

    result = dg.materialize([drift_report], resources={"settings": settings})

    (materialization,) = result.asset_materializations_for_node("drift_report")
    assert materialization.metadata["alert_sent_through"].value == "log"
    assert "Please label the requested images" in caplog.text
    assert (found.report_dir / "notifications.json").exists()


def test_a_report_on_external_images(site: PipelineSettings, drawn_root: Path) -> None:
    """Without predictions, the external folder is compared."""
    shutil.copytree(drawn_root / "external", site.paths.external)

    result = dg.materialize([drift_report], resources={"settings": site})

    (materialization,) = result.asset_materializations_for_node("drift_report")
    assert result.success
    assert materialization.metadata["source"].value == "external"
    assert materialization.metadata["state"].value


def test_a_drift_check_is_expected_daily() -> None:
    policy = drift_report.get_asset_spec().freshness_policy

    assert policy == dg.FreshnessPolicy.time_window(warn_window=timedelta(hours=26), fail_window=timedelta(hours=50))
