"""What starts a run by itself: new images, and drift. Both are stopped until you switch them on.

Stopped by default, because a running one would begin to train as soon as the UI is opened.
"""

import dataclasses
import json
import time
from dataclasses import dataclass
from typing import Self

import dagster as dg

from emotion_assets.assets.drift import drift_report
from emotion_assets.assets.metadata import SIGNATURE_NAME, ingested_as, latest_metadata
from emotion_assets.assets.training import trained_cnn
from emotion_assets.automation.jobs import retrain
from emotion_assets.automation.runs import latest_training, trains, unfinished_runs
from emotion_assets.resources import Automation, DataPaths
from emotion_assets.steps.feedback.labels import FEEDBACK_NAME
from emotion_assets.steps.ingest.scan import folder_signature

COOLDOWN_SECONDS = 6 * 3600
"""Between two runs that drift asked for, or that only labels gave a reason for; labels that trickle in must not start
one each."""
RETRY_SECONDS = 3600
"""A run that failed before it had trained on the new files is requested again after so long, not every minute."""
_INTERVAL_SECONDS = Automation.from_environment().interval_seconds


@dataclass(frozen=True)
class _Memory:
    """What a sensor keeps from one look to the next, as its cursor."""

    seen: str = ""
    """The signature of `raw/` at the last look."""
    since: float = 0.0
    """Since when it has been that, in seconds since the epoch."""
    signature: str = ""
    """The signature of `raw/` at the last request."""
    at: float = 0.0
    """When that was made, in seconds since the epoch."""
    own: str = ""
    """The signature at the last request without labels of the service's images."""
    learnt: str = ""
    """The signature that the newest model was trained on at the last request."""

    @classmethod
    def of(cls, context: dg.SensorEvaluationContext) -> Self:
        names = {field.name for field in dataclasses.fields(cls)}
        kept = json.loads(context.cursor or "{}")
        return cls(**{name: value for name, value in kept.items() if name in names})

    def having_seen(self, signature: str) -> Self:
        """Note how `raw/` looks now; a clock that was put back begins again."""
        now = time.time()
        is_same = self.seen == signature and self.since <= now
        return self if is_same else dataclasses.replace(self, seen=signature, since=now)

    def as_cursor(self) -> str:
        return json.dumps(dataclasses.asdict(self))


@dg.sensor(job=retrain, minimum_interval_seconds=_INTERVAL_SECONDS, default_status=dg.DefaultSensorStatus.STOPPED)
def new_images_sensor(
    context: dg.SensorEvaluationContext, places: DataPaths, automation: Automation
) -> dg.SensorResult | dg.SkipReason:
    """Retrains when images came, went or changed in `raw/` and it was quiet for EMOTION_QUIET_SECONDS."""
    signature, num_files = folder_signature(places.raw_dir)
    learnt = _learnt(context)
    if num_files == 0:
        return dg.SkipReason(f"There is not an image in {places.raw_dir} yet.")
    if signature == learnt:
        return dg.SkipReason(f"Nothing new: the newest model was trained on these {num_files:,} files.")
    own, _ = folder_signature(places.raw_dir, without=FEEDBACK_NAME)
    memory = _Memory.of(context).having_seen(signature)
    cooldown_seconds = 0
    if memory.own == own and memory.signature != signature:
        # Only labels came since, which must not start a run each.
        run = latest_training(context.instance)
        is_success = run is not None and run.dagster_run.status == dg.DagsterRunStatus.SUCCESS
        if memory.learnt != learnt or (is_success and _end_of(run) > memory.at):
            cooldown_seconds = COOLDOWN_SECONDS
            memory = dataclasses.replace(memory, at=max(memory.at, _end_of(run)))
        else:
            # The run for the images before them taught nothing.
            memory = dataclasses.replace(memory, signature=signature)
    wanted = dataclasses.replace(memory, own=own, learnt=learnt)
    return _request(context, automation, memory, wanted, {"trigger": "new_images"}, cooldown_seconds)


@dg.sensor(job=retrain, minimum_interval_seconds=_INTERVAL_SECONDS, default_status=dg.DefaultSensorStatus.STOPPED)
def drift_sensor(
    context: dg.SensorEvaluationContext, places: DataPaths, automation: Automation
) -> dg.SensorResult | dg.SkipReason:
    """Answers to an incident: asks for labels, and retrains once there is something new to learn from."""
    metadata = latest_metadata(context.instance, drift_report.key)
    if "state" not in metadata:
        return dg.SkipReason("There is no drift report yet. Run the job check_drift.")
    state, cause = str(metadata["state"].value), str(metadata["cause"].value)
    if not metadata["is_incident"].value:
        in_a_row = f" ({metadata['alarms_in_a_row'].value} alarm in a row; two make an incident)"
        suffix = in_a_row if state == "prediction_drift" else ""
        return dg.SkipReason(f"The latest drift report says {state}{suffix}: {cause}")
    signature, num_files = folder_signature(places.raw_dir)
    cause = f"Answers changed: {cause} "
    if signature == _learnt(context):
        return dg.SkipReason(
            f"{cause}The {num_files:,} labelled images are the ones that the newest model was trained on, so "
            f"training again would teach nothing. Label recent images and put them into {places.raw_dir}."
        )
    memory = _Memory.of(context).having_seen(signature)
    return _request(context, automation, memory, memory, {"trigger": "drift"}, COOLDOWN_SECONDS, cause)


def _request(
    context: dg.SensorEvaluationContext,
    automation: Automation,
    memory: _Memory,
    wanted: _Memory,
    tags: dict[str, str],
    cooldown_seconds: float,
    cause: str = "",
) -> dg.SensorResult:
    """Ask for a run if nothing speaks against it, and remember `wanted`; else say after `cause` what does."""
    if reason := _why_not(context, memory, automation.quiet_seconds, cooldown_seconds):
        return dg.SensorResult(skip_reason=cause + reason, cursor=memory.as_cursor())
    request = dg.RunRequest(tags=tags, run_config=automation.run_config())
    wanted = dataclasses.replace(wanted, signature=memory.seen, at=time.time())
    return dg.SensorResult([request], cursor=wanted.as_cursor())


def _why_not(
    context: dg.SensorEvaluationContext, memory: _Memory, quiet_seconds: float, cooldown_seconds: float
) -> str | None:
    """Return what speaks against a run now, or None."""
    now = time.time()
    # By this machine's clock: copies keep the times of their originals, and what is deleted leaves none.
    if now - memory.since < quiet_seconds:
        return (
            f"Files are coming or going: raw/ has looked as it does for {now - memory.since:.0f} s; "
            f"waiting for {quiet_seconds:g} s of quiet."
        )
    if any(trains(run) for run in unfinished_runs(context.instance)):
        return "A retrain run is queued or running; what is new is taken after it."
    run = latest_training(context.instance)
    # Whoever started it: what it took in is what lies there now.
    is_tried = run is not None and run.create_timestamp.timestamp() >= memory.since
    if run and is_tried and run.dagster_run.status == dg.DagsterRunStatus.CANCELED:
        return "The run for these files was cancelled. Start the job retrain by hand, or wait for other files."
    waited_seconds = now - max(memory.at, _end_of(run))
    if (is_tried or memory.signature == memory.seen) and 0 <= waited_seconds < RETRY_SECONDS:
        return (
            f"A run for these files was requested or ended {waited_seconds / 60:.0f} minutes ago and trained no model "
            f"on them. Look at it under Runs; the next try comes after {RETRY_SECONDS // 60} minutes."
        )
    if 0 <= now - memory.at < cooldown_seconds:
        return (
            f"A run was requested or ended {(now - memory.at) / 60:.0f} minutes ago; the next one waits until "
            f"{cooldown_seconds / 3600:.0f} hours have passed."
        )
    return None


def _end_of(run: dg.RunRecord | None) -> float:
    return (run.end_time or 0.0) if run else 0.0


def _learnt(context: dg.SensorEvaluationContext) -> str:
    """Return how `raw/` looked to the ingest that the newest model goes back to; empty if that is not known."""
    return ingested_as(context.instance, trained_cnn.key).get(SIGNATURE_NAME, "")
