"""The code location: every asset, check, job, sensor, schedule and resource."""

from __future__ import annotations

import dagster as dg

from emotion_assets.assets import drift, evaluation, external, feedback, ingest, packing, training
from emotion_assets.automation import admin_jobs, jobs, schedules, sensors
from emotion_assets.resources import PipelineSettings

_MODULES = [external, ingest, training, evaluation, packing, drift, feedback]

defs = dg.Definitions(
    assets=dg.load_assets_from_modules(_MODULES, group_name="emotions", include_specs=True),
    asset_checks=dg.load_asset_checks_from_modules(_MODULES),
    jobs=[*jobs.JOBS, *admin_jobs.JOBS],
    sensors=sensors.SENSORS,
    schedules=schedules.SCHEDULES,
    resources={"settings": PipelineSettings.load()},
    # A process for each step would cost about ten seconds of imports each.
    executor=dg.in_process_executor,
)
