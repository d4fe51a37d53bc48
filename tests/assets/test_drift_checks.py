"""The checks under the drift report say what its verdict says."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import pytest

from emotion_assets.assets.drift import no_input_drift, no_prediction_drift
from emotion_assets.resources import DataPaths


@pytest.mark.parametrize(
    ("state", "has_input_drift", "has_prediction_drift", "expected"),
    [
        ("ok", False, False, (True, True)),
        ("input_drift", True, False, (False, True)),
        ("label_shift", False, True, (True, False)),
        ("prediction_drift", True, True, (False, False)),
        # Too few answers to see it yet, but the change is known to spoil them: what acts must not look well.
        ("prediction_drift", True, False, (False, False)),
    ],
)
def test_what_acts_never_passes(
    state: str, has_input_drift: bool, has_prediction_drift: bool, expected: tuple[bool, bool], tmp_path: Path
) -> None:
    """Each check follows its tier, and the answers' check follows the alarm too."""
    places = DataPaths(data_dir=str(tmp_path), reports_url="http://localhost:3002")
    report_dir = places.reports_dir / "drift" / "20260101T000000000000"
    report_dir.mkdir(parents=True)
    record = {"has_input_drift": has_input_drift, "has_prediction_drift": has_prediction_drift}
    (report_dir / "verdict.json").write_text(json.dumps(record | {"state": state, "cause": "something."}))

    results = [check(places) for check in (no_input_drift, no_prediction_drift)]

    assert all(isinstance(result, dg.AssetCheckResult) for result in results)
    assert tuple(result.passed for result in results) == expected
    assert {result.severity for result in results} == {dg.AssetCheckSeverity.WARN}
