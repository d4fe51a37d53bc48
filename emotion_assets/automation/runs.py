"""What runs are queued, going on, or over."""

import dagster as dg

_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def unfinished_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Return the runs that are queued or going on, of any job."""
    return list(instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)))


def latest_end(instance: dg.DagsterInstance, job_name: str) -> tuple[float, dg.DagsterRunStatus | None]:
    """Return when the latest run of a job ended, in seconds since the epoch, and how; 0 and None if none has."""
    for record in instance.get_run_records(dg.RunsFilter(job_name=job_name), limit=1):
        return record.end_time or 0.0, record.dagster_run.status
    return 0.0, None
