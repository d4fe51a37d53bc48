"""What starts a run by itself: new pictures, and drift. Both are stopped until you switch them on.

Stopped by default, because a running one would begin to train as soon as the UI is opened.
"""

import json
import time

import dagster as dg

from emotion_assets.assets.drift import drift_report
from emotion_assets.assets.metadata import ingested_as, latest_metadata
from emotion_assets.assets.training import trained_cnn
from emotion_assets.automation.jobs import retrain
from emotion_assets.resources import Automation, Places
from emotion_assets.steps.data.catalogue import folder_signature
from emotion_assets.steps.drift.feedback import FEEDBACK_NAME

COOLDOWN_SECONDS = 6 * 3600
"""Between two runs that drift asked for, or that only labels gave a reason for; labels that trickle in must not start
one each."""
_INTERVAL_SECONDS = Automation.from_environment().interval_seconds
RETRY_SECONDS = 3600
"""A run that failed before it had trained on the new files is requested again after so long, not every minute."""


@dg.sensor(job=retrain, minimum_interval_seconds=_INTERVAL_SECONDS, default_status=dg.DefaultSensorStatus.STOPPED)
def new_images_sensor(
    context: dg.SensorEvaluationContext, places: Places, automation: Automation
) -> dg.SensorResult | dg.SkipReason:
    """Retrains when photographs came, went or changed in `raw/` and it was quiet for EMOTION_QUIET_SECONDS."""
    signature, num_files, newest = folder_signature(places.raw_dir)
    if num_files == 0:
        return dg.SkipReason(f"There is no photograph in {places.raw_dir} yet.")
    if _is_learnt(context, signature):
        return dg.SkipReason(f"Nothing new: the newest model was trained on these {num_files:,} files.")
    if reason := _unquiet(num_files, newest, automation.quiet_seconds):
        return dg.SkipReason(reason)
    if _is_retraining(context):
        return dg.SkipReason("A retrain run is queued or running; what is new is taken after it.")
    own = folder_signature(places.raw_dir, without=FEEDBACK_NAME)[0]
    last = json.loads(context.cursor or "{}")
    # What people label comes one by one, and each would be a training.
    are_labels = last.get("own") == own and last.get("signature") != signature
    cooldown_seconds = COOLDOWN_SECONDS if are_labels else 0
    return _request(context, automation, signature, {"trigger": "new_images"}, cooldown_seconds, own)


@dg.sensor(job=retrain, minimum_interval_seconds=_INTERVAL_SECONDS, default_status=dg.DefaultSensorStatus.STOPPED)
def drift_sensor(
    context: dg.SensorEvaluationContext, places: Places, automation: Automation
) -> dg.SensorResult | dg.SkipReason:
    """Answers to an incident: asks for labels, and retrains once there is something new to learn from."""
    metadata = latest_metadata(context.instance, drift_report.key)
    if "state" not in metadata:
        return dg.SkipReason("There is no drift report yet. Run the job check_drift.")
    state, cause = str(metadata["state"].value), str(metadata["cause"].value)
    if not metadata["is_incident"].value:
        in_a_row = f" ({metadata['alarms_in_a_row'].value} alarm in a row; two make an incident)"
        suffix = in_a_row if state == "answers_changed" else ""
        return dg.SkipReason(f"The latest drift report says {state}{suffix}: {cause}")
    signature, num_files, newest = folder_signature(places.raw_dir)
    if _is_learnt(context, signature):
        return dg.SkipReason(
            f"Answers changed: {cause} The {num_files:,} labelled photographs are the ones that the newest model was "
            "trained on, so training again would teach nothing. Label recent pictures and put them into "
            f"{places.raw_dir}."
        )
    if reason := _unquiet(num_files, newest, automation.quiet_seconds):
        return dg.SkipReason(f"Answers changed: {cause} {reason}")
    if _is_retraining(context):
        return dg.SkipReason(f"Answers changed: {cause} A retrain run is queued or running already.")
    return _request(context, automation, signature, {"trigger": "drift"}, COOLDOWN_SECONDS)


def _unquiet(num_files: int, newest: float, needed_seconds: float) -> str | None:
    """Return why the folder is not quiet yet, or None when it is."""
    quiet_seconds = time.time() - newest
    # A time in the future (a wrong clock on a camera) says nothing about copying.
    if 0 <= quiet_seconds < needed_seconds:
        return (
            f"Files are arriving: the newest of {num_files:,} is {quiet_seconds:.0f} s old; "
            f"waiting for {needed_seconds:g} s of quiet."
        )
    return None


def _request(
    context: dg.SensorEvaluationContext,
    automation: Automation,
    signature: str,
    tags: dict[str, str],
    cooldown_seconds: float,
    own: str = "",
) -> dg.SensorResult | dg.SkipReason:
    """Ask for one run; for the same files again only after a while, should that run fail before it trained a model.

    `own` stands for the files that are no labels of the service's pictures, for the next look.
    """
    last = json.loads(context.cursor or "{}")
    waited_seconds = time.time() - last.get("at", 0)
    if last.get("signature") == signature and 0 <= waited_seconds < RETRY_SECONDS:
        return dg.SkipReason(
            f"A run for these files was requested {waited_seconds / 60:.0f} minutes ago and trained no model. "
            f"Look at it under Runs; the next try comes after {RETRY_SECONDS // 60} minutes."
        )
    if 0 <= waited_seconds < cooldown_seconds:
        return dg.SkipReason(
            f"A run was requested {waited_seconds / 60:.0f} minutes ago; the next one waits until "
            f"{cooldown_seconds / 3600:.0f} hours have passed."
        )
    request = dg.RunRequest(tags=tags, run_config=automation.run_config())
    return dg.SensorResult([request], cursor=json.dumps({"signature": signature, "at": time.time(), "own": own}))


def _is_learnt(context: dg.SensorEvaluationContext, signature: str) -> bool:
    """Tell whether the newest model goes back to an ingest of `raw/` as it is now."""
    return signature in ingested_as(context.instance, trained_cnn.key).values()


def _is_retraining(context: dg.SensorEvaluationContext) -> bool:
    statuses = [
        dg.DagsterRunStatus.QUEUED,
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.CANCELING,
    ]
    runs = context.instance.get_runs(dg.RunsFilter(statuses=statuses))
    # From the UI assets are materialized in a job without a name of ours; without a selection it is all of them.
    return any(
        run.job_name == retrain.name
        or (run.job_name.startswith("__ASSET_JOB") and trained_cnn.key in (run.asset_selection or {trained_cnn.key}))
        for run in runs
    )
