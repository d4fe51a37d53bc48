"""Start runs on new images and on drift. Both sensors are stopped by default: a running one would train at once.

The only state kept between ticks is when `raw/` last changed. Everything else is read from Dagster: earlier runs, and
what the newest model was trained on.
"""

import contextlib
import json
import math
import time

import dagster as dg

from emotion_assets.assets.drift import drift_report
from emotion_assets.assets.ingest import SIGNATURE, SIGNATURE_WITHOUT_FEEDBACK
from emotion_assets.assets.metadata import latest_metadata
from emotion_assets.automation.jobs import retrain
from emotion_assets.automation.runs import latest_training, trained_on, trains, unfinished_runs
from emotion_assets.core.classes import read_classes
from emotion_assets.resources import PipelineSettings, Settings, uses_data
from emotion_assets.steps.ingest.scan import folder_state

COOLDOWN_SECONDS = 6 * 3600
"""Between two runs for drift, and from a run to the next one for labels alone: each label must not start a run."""
RETRY_SECONDS = 3600
"""After a run that did not train on the new files."""
_INTERVAL_SECONDS = max(5, min(60, int(PipelineSettings.load().quiet_seconds)))


@dg.sensor(
    job=retrain,
    minimum_interval_seconds=_INTERVAL_SECONDS,
    description="Retrains when images were added, removed or changed in `raw/` and it was quiet for "
    "EMOTION_QUIET_SECONDS.",
)
@uses_data()
def new_images_sensor(context: dg.SensorEvaluationContext, settings: Settings) -> dg.SensorResult | dg.SkipReason:
    """Compare `raw/` with what the newest model was trained on."""
    state = folder_state(settings.paths.raw_source, read_classes(settings.paths.classes))
    learned = _learned(context.instance)
    if state.num_files == 0:
        return dg.SkipReason(f"There are no images in {settings.paths.raw_source} yet.")
    if state.signature == learned.get(SIGNATURE):
        return dg.SkipReason(f"Nothing new: the newest model was trained on these {state.num_files:,} files.")
    if state.signature_without_feedback == learned.get(SIGNATURE_WITHOUT_FEEDBACK):
        return _request(context, settings, state.signature, "labels", cooldown_from=latest_training(context.instance))
    return _request(context, settings, state.signature, "new_images")


@dg.sensor(
    job=retrain,
    minimum_interval_seconds=_INTERVAL_SECONDS,
    description="Retrains after a drift incident, once there are new labelled images to learn from.",
)
@uses_data()
def drift_sensor(context: dg.SensorEvaluationContext, settings: Settings) -> dg.SensorResult | dg.SkipReason:
    """Look for an open incident, and for labels that the newest model has not seen."""
    metadata = latest_metadata(context.instance, drift_report.key)
    if "state" not in metadata:
        return dg.SkipReason("There is no drift report yet. Run the job check_drift.")
    verdict, cause = str(metadata["state"].value), str(metadata["cause"].value)
    if not metadata["is_incident"].value:
        num_alarms = metadata["alarms_in_a_row"].value
        suffix = f" ({num_alarms} alarm so far; two consecutive alarms open an incident)" if num_alarms else ""
        return dg.SkipReason(f"The latest drift report says {verdict}{suffix}: {cause}")
    state = folder_state(settings.paths.raw_source, read_classes(settings.paths.classes))
    cause = f"Incident: {cause} "
    if state.signature == _learned(context.instance).get(SIGNATURE):
        return dg.SkipReason(
            f"{cause}The newest model was already trained on the {state.num_files:,} labelled images. "
            f"Label recent images and add them to {settings.paths.raw_source}."
        )
    previous = latest_training(context.instance, {"trigger": "drift"})
    return _request(context, settings, state.signature, "drift", cause, cooldown_from=previous)


def _request(
    context: dg.SensorEvaluationContext,
    settings: PipelineSettings,
    signature: str,
    trigger: str,
    cause: str = "",
    cooldown_from: dg.RunRecord | None = None,
) -> dg.SensorResult:
    """Request a run unless there is a reason to wait, such as a recent run; the reason follows `cause`."""
    since = _quiet_since(context, signature)
    cursor = json.dumps({"signature": signature, "since": since})
    run = latest_training(context.instance)
    if reason := _reason_to_wait(context.instance, run, since, settings.quiet_seconds, cooldown_from):
        return dg.SensorResult(skip_reason=cause + reason, cursor=cursor)
    # One run for each state of the folder and each attempt: Dagster drops a request whose key was used before.
    attempt = run.dagster_run.run_id if run else "first"
    request = dg.RunRequest(
        run_key=f"{signature}-{attempt}", tags={"trigger": trigger}, run_config=settings.load_run_config()
    )
    return dg.SensorResult([request], cursor=cursor)


def _quiet_since(context: dg.SensorEvaluationContext, signature: str) -> float:
    """Return since when `raw/` has looked like this, by this machine's clock: copies keep old file times."""
    now, before = time.time(), {}
    with contextlib.suppress(ValueError, TypeError):  # people can edit a cursor in the UI
        before = dict(json.loads(context.cursor or "{}"))
    since = before.get("since")
    if before.get("signature") == signature and isinstance(since, float) and since <= now:
        return since
    return now  # also if the clock was set back


def _reason_to_wait(
    instance: dg.DagsterInstance,
    run: dg.RunRecord | None,
    since: float,
    quiet_seconds: float,
    cooldown_from: dg.RunRecord | None,
) -> str | None:
    quiet = time.time() - since
    if quiet < quiet_seconds:
        return f"Files are changing: raw/ has been quiet for {quiet:.0f} s of {quiet_seconds:g} s."
    if any(trains(unfinished) for unfinished in unfinished_runs(instance)):
        return "A training run is queued or running; new images are taken after it."
    # A run that was created since then has read these files, no matter who started it.
    if run and run.create_timestamp.timestamp() >= since:
        if run.dagster_run.status == dg.DagsterRunStatus.CANCELED:
            return "The run for these files was canceled. Start the job retrain by hand, or wait for other files."
        if (elapsed := _seconds_since(run)) < RETRY_SECONDS:
            return (
                f"A run for these files ended {elapsed / 60:.0f} minutes ago and trained no model on them; see Runs. "
                f"The next attempt follows after {RETRY_SECONDS // 60} minutes."
            )
    if cooldown_from and (elapsed := _seconds_since(cooldown_from)) < COOLDOWN_SECONDS:
        hours, minutes = COOLDOWN_SECONDS // 3600, (COOLDOWN_SECONDS - elapsed) / 60
        return f"The last run was less than {hours} h ago; {minutes:.0f} minutes left."
    return None


def _seconds_since(run: dg.RunRecord) -> float:
    """Return the time since a run ended, or was created if it has no end; infinity if the clock was set back."""
    elapsed = time.time() - (run.end_time or run.create_timestamp.timestamp())
    return elapsed if elapsed >= 0 else math.inf


def _learned(instance: dg.DagsterInstance) -> dict[str, str]:
    """Return the signatures of `raw/` that the newest model was trained on; empty if unknown."""
    materialization = trained_on(instance)
    metadata = materialization.metadata if materialization else {}
    return {name: str(metadata[name].value) for name in (SIGNATURE, SIGNATURE_WITHOUT_FEEDBACK) if name in metadata}


SENSORS = [new_images_sensor, drift_sensor]
