"""What happens by the clock."""

from collections.abc import Callable

import dagster as dg

from emotion_assets.automation.jobs import check_drift, collect_feedback, compact_log
from emotion_assets.automation.runs import unfinished_runs


def _unless_waiting(job_name: str) -> Callable[[dg.ScheduleEvaluationContext], dg.RunRequest | dg.SkipReason]:
    """Ask for a run of a job, if none waits already behind a long training."""

    def request(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if any(run.job_name == job_name for run in unfinished_runs(context.instance)):
            return dg.SkipReason(f"A run of {job_name} is queued or running already.")
        return dg.RunRequest()

    return request


daily_drift_check = dg.ScheduleDefinition(
    name="daily_drift_check",
    job=check_drift,
    execution_fn=_unless_waiting(check_drift.name),
    cron_schedule="0 6 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Looks for drift every day at 06:00 UTC. Stopped until you switch it on.",
)
"""Stopped by default: it needs an accepted model and a service that logs."""

feedback_collection = dg.ScheduleDefinition(
    name="feedback_collection",
    job=collect_feedback,
    execution_fn=_unless_waiting(collect_feedback.name),
    cron_schedule="*/15 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Takes labels in every quarter of an hour. Stopped until you switch it on.",
)
"""Stopped by default: labels of strangers should be trusted on purpose."""

log_compaction = dg.ScheduleDefinition(
    name="log_compaction",
    job=compact_log,
    execution_fn=_unless_waiting(compact_log.name),
    cron_schedule="20 0 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Turns yesterday's prediction log into Parquet at 00:20 UTC. Stopped until you switch it on.",
)
"""Stopped by default: other tools may read the log's lines."""
