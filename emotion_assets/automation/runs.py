"""What runs are queued, running, or over."""

import dagster as dg

from emotion_assets.assets.training import trained_cnn
from emotion_assets.automation.jobs import retrain

_JOB_OF_UI = "__ASSET_JOB"
_NUM_LOOKED_AT = 20
_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def unfinished_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Return the runs that are queued or running, of any job."""
    return list(instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)))


def latest_training(instance: dg.DagsterInstance) -> dg.RunRecord | None:
    """Return the latest run that trains, with its times; None if there was none."""
    found = [
        record
        for name in (retrain.name, _JOB_OF_UI)
        for record in instance.get_run_records(dg.RunsFilter(job_name=name), limit=_NUM_LOOKED_AT)
        if trains(record.dagster_run)
    ]
    return max(found, key=lambda record: record.create_timestamp, default=None)


def trains(run: dg.DagsterRun) -> bool:
    """Tell whether a run trains a model: the job `retrain`, or a press of the UI's button."""
    # From the UI assets are materialized in a job without a name of ours; without a selection it is all of them.
    is_of_ui = run.job_name.startswith(_JOB_OF_UI)
    return run.job_name == retrain.name or (is_of_ui and trained_cnn.key in (run.asset_selection or {trained_cnn.key}))
