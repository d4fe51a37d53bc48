"""Find the runs that train, and what the newest model was trained on."""

from itertools import pairwise

import dagster as dg

from emotion_assets.assets.ingest import greyscale_splits, raw_images
from emotion_assets.assets.metadata import DATA_VERSION_TAG
from emotion_assets.assets.training import trained_cnn
from emotion_assets.automation.jobs import retrain

_UI_JOB = "__ASSET_JOB"
_NUM_RECORDS = 20
_FINISHED = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
_INPUT_VERSION = "dagster/input_data_version/"


def unfinished_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Return the runs of any job that are queued or running."""
    statuses = [status for status in dg.DagsterRunStatus if status not in _FINISHED]
    return list(instance.get_runs(dg.RunsFilter(statuses=statuses)))


def latest_training(instance: dg.DagsterInstance, tags: dict[str, str] | None = None) -> dg.RunRecord | None:
    """Return the latest run that reads `raw/` and trains, with its times; None if there is none with these tags."""
    found = [
        record
        for job_name in (retrain.name, _UI_JOB)
        for record in instance.get_run_records(dg.RunsFilter(job_name=job_name, tags=tags or {}), limit=_NUM_RECORDS)
        if trains(record.dagster_run) and _includes(record.dagster_run, raw_images)
    ]
    return max(found, key=lambda record: record.create_timestamp, default=None)


def trains(run: dg.DagsterRun) -> bool:
    """Return whether a run trains a model, in the job `retrain` or by the UI's *Materialize*, which has its own job."""
    return (run.job_name == retrain.name or run.job_name.startswith(_UI_JOB)) and _includes(run, trained_cnn)


def _includes(run: dg.DagsterRun, asset: dg.AssetsDefinition) -> bool:
    """Return whether a run materializes an asset: by its steps, else its selection; with neither, it does."""
    if run.step_keys_to_execute is not None:
        return asset.key.path[-1] in run.step_keys_to_execute
    return run.asset_selection is None or asset.key in run.asset_selection


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
        if (downstream.tags or {}).get(_INPUT_VERSION + name) != (upstream.tags or {}).get(DATA_VERSION_TAG):
            return None
    return found[0]
