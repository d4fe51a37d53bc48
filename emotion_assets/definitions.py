"""Assembly: every asset, check, job, sensor, schedule and resource of the code location."""

from __future__ import annotations

import dagster as dg

from emotion_assets.assets import data, drift, evaluation, feedback, packing, training
from emotion_assets.automation.admin_jobs import MODEL_JOBS
from emotion_assets.automation.jobs import check_drift, collect_feedback, compact_log, retrain
from emotion_assets.automation.schedules import daily_drift_check, feedback_collection, log_compaction
from emotion_assets.automation.sensors import drift_sensor, new_images_sensor
from emotion_assets.resources import Alerts, Automation, DataPaths

_ROOMS = [data, training, evaluation, drift, packing, feedback]

defs = dg.Definitions(
    assets=dg.load_assets_from_modules(_ROOMS),
    asset_checks=dg.load_asset_checks_from_modules(_ROOMS),
    jobs=[retrain, check_drift, collect_feedback, compact_log, *MODEL_JOBS],
    sensors=[new_images_sensor, drift_sensor],
    schedules=[daily_drift_check, feedback_collection, log_compaction],
    resources={
        "places": DataPaths.from_environment(),
        "alerts": Alerts.from_environment(),
        "automation": Automation.from_environment(),
    },
    # A process for each step would cost about ten seconds of imports each.
    executor=dg.in_process_executor,
)
