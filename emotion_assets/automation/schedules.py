"""What happens by the clock."""

import dagster as dg

from emotion_assets.automation.jobs import check_drift, collect_feedback, compact_log

daily_drift_check = dg.ScheduleDefinition(
    name="daily_drift_check",
    job=check_drift,
    cron_schedule="0 6 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Looks for drift every day at 06:00 UTC. Stopped until you switch it on.",
)
"""Stopped by default: it needs an accepted model and a service that logs."""

feedback_collection = dg.ScheduleDefinition(
    name="feedback_collection",
    job=collect_feedback,
    cron_schedule="*/15 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Takes labels in every quarter of an hour. Stopped until you switch it on.",
)
"""Stopped by default: labels of strangers should be trusted on purpose."""

log_compaction = dg.ScheduleDefinition(
    name="log_compaction",
    job=compact_log,
    cron_schedule="20 0 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Turns yesterday's prediction log into Parquet at 00:20 UTC. Stopped until you switch it on.",
)
"""Stopped by default: other tools may read the log's lines."""
