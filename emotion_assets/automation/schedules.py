"""The schedules. All are stopped by default; the reason is in each description."""

import dagster as dg

from emotion_assets.automation.jobs import check_drift, collect_feedback, compact_log
from emotion_assets.automation.runs import unfinished_runs


def _schedule(name: str, job_name: str, cron: str, description: str) -> dg.ScheduleDefinition:
    """Return a schedule that requests a run unless one is already queued or running."""

    def request(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if any(run.job_name == job_name for run in unfinished_runs(context.instance)):
            return dg.SkipReason(f"A run of {job_name} is already queued or running.")
        return dg.RunRequest()

    return dg.ScheduleDefinition(
        name=name,
        job_name=job_name,
        execution_fn=request,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=description,
    )


SCHEDULES = [
    _schedule(
        "daily_drift_check",
        check_drift.name,
        "0 6 * * *",
        "Checks for drift daily at 06:00 UTC. Stopped by default: it needs an accepted model and a running service.",
    ),
    _schedule(
        "feedback_collection",
        collect_feedback.name,
        "*/15 * * * *",
        "Collects labels every 15 minutes. Stopped by default: trusting anyone's labels is a decision.",
    ),
    _schedule(
        "log_compaction",
        compact_log.name,
        "20 0 * * *",
        "Compacts yesterday's prediction log at 00:20 UTC. Stopped by default: other tools may read its JSON lines.",
    ),
]
