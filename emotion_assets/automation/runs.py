"""Find the runs that train, and what the newest model was trained on."""

from itertools import pairwise

import dagster as dg

from emotion_assets.assets.ingest import greyscale_splits, raw_images
from emotion_assets.assets.training import trained_cnn
from emotion_assets.automation.jobs import retrain

_UI_JOB = "__ASSET_JOB"
_NUM_RECORDS = 20
_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_DATA_VERSION = "dagster/data_version"
_INPUT_VERSION = "dagster/input_data_version/"


def unfinished_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Return the runs of any job that are queued or running."""
    return list(instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)))


def latest_training(instance: dg.DagsterInstance, tags: dict[str, str] | None = None) -> dg.RunRecord | None:
    """Return the latest run that trains, with its times; None if there is none with these tags."""
    found = [
        record
        for job_name in (retrain.name, _UI_JOB)
        for record in instance.get_run_records(dg.RunsFilter(job_name=job_name, tags=tags or {}), limit=_NUM_RECORDS)
        if trains(record.dagster_run)
    ]
    return max(found, key=lambda record: record.create_timestamp, default=None)


def trains(run: dg.DagsterRun) -> bool:
    """Tell whether a run trains a model: the job `retrain`, or the UI's *Materialize*."""
    # The UI materializes assets in a job of its own; without a selection it is all of them.
    is_ui = run.job_name.startswith(_UI_JOB)
    return run.job_name == retrain.name or (is_ui and trained_cnn.key in (run.asset_selection or {trained_cnn.key}))


def trained_on(instance: dg.DagsterInstance) -> dg.AssetMaterialization | None:
    """Return the materialization of `raw_images` that the newest model goes back to.

    Dagster records with each materialization the data versions of its inputs. None if the newest model was not trained
    on the newest splits, or these were not made from the newest catalogue.
    """
    chain = [raw_images.key, greyscale_splits.key, trained_cnn.key]
    events = [instance.get_latest_materialization_event(key) for key in chain]
    found = [event.asset_materialization for event in events if event and event.asset_materialization]
    if len(found) < len(chain):
        return None
    for upstream, downstream in pairwise(found):
        name = upstream.asset_key.to_user_string()
        if (downstream.tags or {}).get(_INPUT_VERSION + name) != (upstream.tags or {}).get(_DATA_VERSION):
            return None
    return found[0]
