from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from emotion_assets.automation import sensors
from emotion_assets.automation.sensors import (
    COOLDOWN_SECONDS,
    RETRY_SECONDS,
    drift_sensor,
    new_images_sensor,
)
from emotion_assets.core.errors import InvalidSettingError
from emotion_assets.resources import Automation, DataPaths
from emotion_assets.steps.ingest.scan import folder_signature

QUIET_SECONDS = Automation().quiet_seconds
AT_ONCE = Automation(quiet_seconds=0)


@pytest.fixture
def places(tmp_path: Path) -> DataPaths:
    return DataPaths(data_dir=str(tmp_path), reports_url="http://localhost:3002")


@pytest.fixture
def instance() -> dg.DagsterInstance:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def set_clock(monkeypatch: pytest.MonkeyPatch, seconds_ahead: float) -> None:
    monkeypatch.setattr(sensors, "time", SimpleNamespace(time=lambda: time.time() + seconds_ahead))


def put(places: DataPaths, face: bytes, name: str = "a.jpg", age_seconds: float = 0) -> None:
    path = places.raw_dir / "Happy" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(face)
    moment = time.time() - age_seconds
    os.utime(path, (moment, moment))


def tick(
    sensor: Any,
    places: DataPaths,
    instance: dg.DagsterInstance,
    cursor: str | None = None,
    automation: Automation = AT_ONCE,
) -> Any:
    context = dg.build_sensor_context(
        instance=instance, cursor=cursor, resources={"places": places, "automation": automation}
    )
    return sensor(context)


def why(result: dg.SensorResult | dg.SkipReason) -> str:
    """Return why a sensor starts nothing."""
    skipped = result.skip_reason if isinstance(result, dg.SensorResult) else result
    assert skipped
    assert skipped.skip_message
    return skipped.skip_message


def report_event(instance: dg.DagsterInstance, key: str, metadata: dict[str, Any]) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(key, metadata=metadata))


def test_new_images_start_one_run(places: DataPaths, instance: dg.DagsterInstance, face: bytes) -> None:
    """Quiet new files request one run; the next tick, with the cursor, none."""
    put(places, face)
    put(places, face, "b.jpg")

    first = tick(new_images_sensor, places, instance)
    second = tick(new_images_sensor, places, instance, cursor=first.cursor)

    assert len(first.run_requests) == 1
    assert first.run_requests[0].tags["trigger"] == "new_images"
    assert "requested or ended 0 minutes ago" in why(second)


@pytest.mark.parametrize("age_seconds", [0, 10**8, -(10**8)])
def test_arriving_images_wait(
    places: DataPaths, instance: dg.DagsterInstance, face: bytes, age_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing starts while files come or go, whatever time they bring along: an archive's, or that of a wrong clock."""
    cursor = None
    for number in range(4):
        set_clock(monkeypatch, number * QUIET_SECONDS)
        if number < 3:
            put(places, face, f"{number}.jpg", age_seconds=age_seconds)
        else:
            (places.raw_dir / "Happy" / "1.jpg").unlink()
        look = tick(new_images_sensor, places, instance, cursor, Automation())
        cursor = look.cursor
        assert "waiting for 60 s" in why(look)

    set_clock(monkeypatch, 4 * QUIET_SECONDS - 5)
    look = tick(new_images_sensor, places, instance, cursor, Automation())
    assert "for 55 s" in why(look)
    set_clock(monkeypatch, 4 * QUIET_SECONDS + 1)
    assert len(tick(new_images_sensor, places, instance, look.cursor, Automation()).run_requests) == 1


def test_a_clock_that_was_put_back_begins_anew(
    places: DataPaths, instance: dg.DagsterInstance, face: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or nothing would start until it is that late again."""
    put(places, face)
    set_clock(monkeypatch, 10**6)
    cursor = tick(new_images_sensor, places, instance, automation=Automation()).cursor
    set_clock(monkeypatch, 0)
    cursor = tick(new_images_sensor, places, instance, cursor, Automation()).cursor
    set_clock(monkeypatch, QUIET_SECONDS + 1)

    assert len(tick(new_images_sensor, places, instance, cursor, Automation()).run_requests) == 1


def test_a_file_that_became_readable_is_new(places: DataPaths, face: bytes) -> None:
    """The ingest had rejected it; nothing but its permissions has changed."""
    put(places, face)
    before = folder_signature(places.raw_dir)[0]
    (places.raw_dir / "Happy" / "a.jpg").chmod(0o604)

    assert folder_signature(places.raw_dir)[0] != before


def test_an_empty_folder_is_no_reason(places: DataPaths, instance: dg.DagsterInstance) -> None:
    """Without images the sensor says so."""
    assert "no image" in why(tick(new_images_sensor, places, instance))


def test_what_was_learnt_by_hand_is_not_new(places: DataPaths, instance: dg.DagsterInstance, face: bytes) -> None:
    """After a run from the UI the sensor does not start another for the same files."""
    put(places, face)
    signature = json.loads(tick(new_images_sensor, places, instance).cursor)["signature"]
    report_event(instance, "trained_cnn", {"folder_signature": signature})

    assert "Nothing new" in why(tick(new_images_sensor, places, instance))


def test_what_was_only_ingested_is_still_new(places: DataPaths, instance: dg.DagsterInstance, face: bytes) -> None:
    """A run that failed after the ingest has taught nothing."""
    put(places, face)
    signature = json.loads(tick(new_images_sensor, places, instance).cursor)["signature"]
    for key in ("raw_images", "greyscale_splits"):
        report_event(instance, key, {"folder_signature": signature})

    assert len(tick(new_images_sensor, places, instance).run_requests) == 1


@pytest.mark.parametrize("job_name", ["retrain", "__ASSET_JOB"])
def test_no_second_run_while_one_is_going_on(
    places: DataPaths, instance: dg.DagsterInstance, face: bytes, job_name: str
) -> None:
    """The sensor waits for a retrain that is running, also one of the UI's button, and forgets nothing."""
    put(places, face)
    from emotion_assets.definitions import defs

    run = instance.create_run_for_job(defs.resolve_job_def(job_name), status=dg.DagsterRunStatus.STARTED)
    assert "queued or running" in why(tick(new_images_sensor, places, instance))

    instance.delete_run(run.run_id)
    other = instance.create_run_for_job(
        defs.resolve_job_def("__ASSET_JOB"),
        status=dg.DagsterRunStatus.STARTED,
        asset_selection=frozenset([dg.AssetKey("drift_report")]),
    )
    assert other.asset_selection
    assert len(tick(new_images_sensor, places, instance).run_requests) == 1


INCIDENT = {"state": "prediction_drift", "cause": "answers shift to sad.", "is_incident": True, "alarms_in_a_row": 2}


def test_one_alarm_is_no_incident(places: DataPaths, instance: dg.DagsterInstance, face: bytes) -> None:
    """A single alarming window starts nothing, and the sensor says so."""
    put(places, face)
    report_event(instance, "drift_report", INCIDENT | {"is_incident": False, "alarms_in_a_row": 1})

    assert "two make an incident" in why(tick(drift_sensor, places, instance))


def test_drift_sensor_cools_down(places: DataPaths, instance: dg.DagsterInstance, face: bytes) -> None:
    """After a run that drift asked for, other new files wait some hours before drift asks again."""
    put(places, face)
    report_event(instance, "trained_cnn", {"folder_signature": "of yesterday"})
    report_event(instance, "drift_report", INCIDENT)
    cursor = json.loads(tick(drift_sensor, places, instance).cursor) | {"signature": "other files"}

    assert "until 6 hours have passed" in why(tick(drift_sensor, places, instance, json.dumps(cursor)))
    cursor["at"] -= COOLDOWN_SECONDS + 1
    assert len(tick(drift_sensor, places, instance, json.dumps(cursor)).run_requests) == 1


def test_drift_sensor_explains_why_it_waits(places: DataPaths, instance: dg.DagsterInstance, face: bytes) -> None:
    """No report, no alarm, nothing new to learn: three reasons in words."""
    put(places, face)
    assert "no drift report" in why(tick(drift_sensor, places, instance))

    report_event(
        instance,
        "drift_report",
        {"state": "input_drift", "cause": "images are darker.", "is_incident": False, "alarms_in_a_row": 0},
    )
    assert "input_drift: images are darker." in why(tick(drift_sensor, places, instance))

    report_event(instance, "drift_report", INCIDENT)
    signature = json.loads(tick(new_images_sensor, places, instance).cursor)["signature"]
    report_event(instance, "trained_cnn", {"folder_signature": signature})
    assert "Label recent images" in why(tick(drift_sensor, places, instance))


def test_drift_sensor_retrains_once_when_there_is_something_to_learn(
    places: DataPaths, instance: dg.DagsterInstance, face: bytes
) -> None:
    """An alarm with new images starts one run; the same alarm starts no second one."""
    put(places, face)
    report_event(instance, "trained_cnn", {"folder_signature": "of yesterday"})
    report_event(instance, "drift_report", INCIDENT)

    first = tick(drift_sensor, places, instance)
    second = tick(drift_sensor, places, instance, cursor=first.cursor)

    assert [request.tags["trigger"] for request in first.run_requests] == ["drift"]
    assert "was requested" in why(second)


def test_a_failed_run_is_tried_again_after_a_while(
    places: DataPaths, instance: dg.DagsterInstance, face: bytes
) -> None:
    """Files that no run learnt from are not forgotten, and not asked for every minute either."""
    put(places, face)
    cursor = json.loads(tick(new_images_sensor, places, instance).cursor)

    assert "trained no model" in why(tick(new_images_sensor, places, instance, json.dumps(cursor)))
    cursor["at"] -= RETRY_SECONDS + 1
    assert len(tick(new_images_sensor, places, instance, json.dumps(cursor)).run_requests) == 1


@pytest.mark.parametrize(("is_learnt", "expected"), [(True, "until 6 hours have passed"), (False, "trained no model")])
def test_labels_that_trickle_in_start_no_run_each(
    places: DataPaths, instance: dg.DagsterInstance, face: bytes, is_learnt: bool, expected: str
) -> None:
    """They wait some hours for each other, but do not hold up a delivery that nothing has learnt from yet."""
    put(places, face)
    cursor = tick(new_images_sensor, places, instance).cursor
    if is_learnt:
        report_event(instance, "trained_cnn", {"folder_signature": json.loads(cursor)["signature"]})
    put(places, face, "feedback/1.jpg")
    assert expected in why(tick(new_images_sensor, places, instance, cursor))

    put(places, face, "b.jpg")
    assert len(tick(new_images_sensor, places, instance, cursor).run_requests) == 1


def test_a_run_of_the_ui_that_somebody_cancelled_is_not_started_again(
    places: DataPaths, instance: dg.DagsterInstance, face: bytes
) -> None:
    """It has another name, and trains the same."""
    from emotion_assets.definitions import defs

    put(places, face)
    cursor = json.dumps(json.loads(tick(new_images_sensor, places, instance).cursor) | {"signature": "", "at": 0})
    run = instance.create_run_for_job(defs.resolve_job_def("__ASSET_JOB"), status=dg.DagsterRunStatus.STARTED)
    instance.report_dagster_event(dg.DagsterEvent(dg.DagsterEventType.RUN_CANCELED.value, "__ASSET_JOB"), run.run_id)

    assert "was cancelled" in why(tick(new_images_sensor, places, instance, cursor))


@pytest.mark.parametrize(
    ("status", "expected"),
    [(dg.DagsterRunStatus.FAILURE, "trained no model"), (dg.DagsterRunStatus.CANCELED, "was cancelled")],
)
def test_the_hour_counts_from_the_end_of_a_run(
    places: DataPaths,
    instance: dg.DagsterInstance,
    face: bytes,
    status: dg.DagsterRunStatus,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run of hours that failed is not started again at once, and one that somebody cancelled not by itself."""
    from emotion_assets.definitions import defs

    put(places, face)
    cursor = json.loads(tick(new_images_sensor, places, instance).cursor)
    cursor["at"] -= 3 * RETRY_SECONDS
    run = instance.create_run_for_job(defs.resolve_job_def("retrain"), status=dg.DagsterRunStatus.STARTED)
    event = (
        dg.DagsterEventType.RUN_FAILURE if status == dg.DagsterRunStatus.FAILURE else dg.DagsterEventType.RUN_CANCELED
    )
    instance.report_dagster_event(dg.DagsterEvent(event.value, "retrain"), run.run_id)

    assert expected in why(tick(new_images_sensor, places, instance, json.dumps(cursor)))
    set_clock(monkeypatch, RETRY_SECONDS + 10)
    later = tick(new_images_sensor, places, instance, json.dumps(cursor))
    if status == dg.DagsterRunStatus.FAILURE:
        assert len(later.run_requests) == 1
    else:
        assert expected in why(later)
        put(places, face, "b.jpg")
        assert len(tick(new_images_sensor, places, instance, json.dumps(cursor)).run_requests) == 1


def test_a_run_that_somebody_cancelled_is_started_by_no_sensor(
    places: DataPaths, instance: dg.DagsterInstance, face: bytes
) -> None:
    """Whichever of them asked for it, or a person did."""
    from emotion_assets.definitions import defs

    put(places, face)
    report_event(instance, "drift_report", INCIDENT)
    cursor = tick(new_images_sensor, places, instance).cursor
    drift_cursor = tick(drift_sensor, places, instance).cursor
    run = instance.create_run_for_job(defs.resolve_job_def("retrain"), status=dg.DagsterRunStatus.STARTED)
    instance.report_dagster_event(dg.DagsterEvent(dg.DagsterEventType.RUN_CANCELED.value, "retrain"), run.run_id)
    unasked = json.dumps(json.loads(cursor) | {"signature": "", "at": 0})

    for sensor, kept in ((new_images_sensor, cursor), (new_images_sensor, unasked), (drift_sensor, drift_cursor)):
        assert "was cancelled" in why(tick(sensor, places, instance, kept))


def test_a_schedule_does_not_pile_up_runs() -> None:
    """Behind a training of hours one run of each kind waits, not dozens."""
    from emotion_assets.automation.schedules import feedback_collection
    from emotion_assets.definitions import defs

    with dg.instance_for_test() as instance:
        context = dg.build_schedule_context(instance=instance)
        assert feedback_collection.evaluate_tick(context).run_requests
        instance.create_run_for_job(defs.resolve_job_def("collect_feedback"), status=dg.DagsterRunStatus.STARTED)
        tick_result = feedback_collection.evaluate_tick(context)

    assert not tick_result.run_requests
    assert tick_result.skip_message
    assert "queued or running" in tick_result.skip_message


def test_a_report_noted_by_hand_is_none(places: DataPaths, instance: dg.DagsterInstance) -> None:
    """The UI lets people report a materialization, without any of what ours says."""
    report_event(instance, "drift_report", {})

    assert "no drift report" in why(tick(drift_sensor, places, instance))


def test_a_delivery_that_was_undone_and_redone_is_taken_in(
    places: DataPaths, instance: dg.DagsterInstance, face: bytes
) -> None:
    """Signatures that were seen before count again when they are not the ingested one."""
    put(places, face)
    first = tick(new_images_sensor, places, instance)
    report_event(instance, "trained_cnn", {"folder_signature": "with one more file"})
    cursor = json.loads(first.cursor) | {"signature": "with one more file", "own": "with one more file"}

    assert len(tick(new_images_sensor, places, instance, json.dumps(cursor)).run_requests) == 1


def test_a_sensor_gives_its_runs_the_chosen_configuration(
    places: DataPaths, instance: dg.DagsterInstance, face: bytes, tmp_path: Path
) -> None:
    """What EMOTION_RUN_CONFIG names goes with the request; an unreadable file is said, and nothing is requested."""
    put(places, face)
    path = tmp_path / "run.yaml"
    automation = Automation(quiet_seconds=0, run_config_path=str(path))
    with pytest.raises(dg.Failure, match="unreadable"):
        tick(new_images_sensor, places, instance, automation=automation)
    path.write_text("7")
    with pytest.raises(dg.Failure, match="no mapping"):
        tick(new_images_sensor, places, instance, automation=automation)
    path.write_text("ops: {trained_cnn: {config: {preset: quick}}}")

    (request,) = tick(new_images_sensor, places, instance, automation=automation).run_requests

    assert request.run_config == {"ops": {"trained_cnn": {"config": {"preset": "quick"}}}}


@pytest.mark.parametrize("text", ["1m", "-1", "nan", "inf"])
def test_a_wrong_number_of_quiet_seconds_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read when the definitions load, so the message is all that there is."""
    monkeypatch.setenv("EMOTION_QUIET_SECONDS", text)

    with pytest.raises(InvalidSettingError, match=f"EMOTION_QUIET_SECONDS is '{text}'"):
        Automation.from_environment()
