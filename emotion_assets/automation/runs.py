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


def latest_run(instance: dg.DagsterInstance, job_name: str) -> dg.RunRecord | None:
    """Return the latest run of a job with its times; None if there was none."""
    return next(iter(instance.get_run_records(dg.RunsFilter(job_name=job_name), limit=1)), None)
