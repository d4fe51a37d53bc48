from __future__ import annotations

from emotion_assets.automation.jobs import JOBS
from emotion_assets.definitions import defs


def test_each_job_selects_its_assets() -> None:
    selected = {
        job.name: {key.to_user_string() for key in defs.resolve_job_def(job.name).asset_layer.executable_asset_keys}
        for job in JOBS
    }

    assert selected["check_drift"] == {"drift_report"}
    assert selected["collect_feedback"] == {"collected_feedback"}
    assert selected["compact_log"] == {"prediction_history"}
    assert len(selected["retrain"]) == 6
