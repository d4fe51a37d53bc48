from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from emotion_assets.automation import sensors
from emotion_assets.automation.sensors import COOLDOWN_SECONDS, RETRY_SECONDS, drift_sensor, new_images_sensor
from emotion_assets.core.classes import read_classes
from emotion_assets.resources import PipelineSettings
from emotion_assets.steps.ingest.scan import folder_state
from tests.automation.helpers import QUIET_SECONDS, put, run, set_clock, trained

INCIDENT = {"state": "prediction_drift", "cause": "predictions shift to sad.", "is_incident": True}
FAILED, CANCELED = dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED


def tick(sensor: Any, settings: PipelineSettings, instance: dg.DagsterInstance, cursor: str | None = None) -> Any:
    return sensor(dg.build_sensor_context(instance=instance, cursor=cursor, resources={"settings": settings}))


def reason(result: dg.SensorResult | dg.SkipReason) -> str:
    """Return why a sensor requests nothing."""
    skipped = result.skip_reason if isinstance(result, dg.SensorResult) else result
    assert skipped
    assert skipped.skip_message
    return skipped.skip_message


def report_drift(instance: dg.DagsterInstance, **metadata: Any) -> None:
    instance.report_runless_asset_event(
        dg.AssetMaterialization("drift_report", metadata={"alarms_in_a_row": 2, **metadata})
    )


def learn(settings: PipelineSettings, instance: dg.DagsterInstance) -> None:
    """Report a model that was trained on what is in `raw/` now."""
    state = folder_state(settings.paths.raw, read_classes(settings.paths.classes))
    trained(
        instance,
        folder_signature=state.signature,
        folder_signature_without_feedback=state.signature_without_feedback,
    )


@pytest.fixture
def patient(settings: PipelineSettings) -> PipelineSettings:
    """The same data root, with the default time of quiet."""
    return settings.model_copy(update={"quiet_seconds": QUIET_SECONDS})


def test_new_images_request_one_run(settings: PipelineSettings, instance: dg.DagsterInstance, face: bytes) -> None:
    """Dagster drops a second request for the same state of the folder, because its key was used."""
    put(settings, face)
    put(settings, face, "b.jpg")

    first = tick(new_images_sensor, settings, instance)
    second = tick(new_images_sensor, settings, instance, first.cursor)

    assert [request.tags["trigger"] for request in first.run_requests] == ["new_images"]
    assert first.run_requests[0].run_key == second.run_requests[0].run_key


@pytest.mark.parametrize("age_seconds", [0, 10**8, -(10**8)])
def test_images_that_are_being_copied_wait(
    patient: PipelineSettings,
    instance: dg.DagsterInstance,
    face: bytes,
    age_seconds: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing starts while files come or go, whatever times they carry: an archive's, or that of a wrong clock."""
    cursor = None
    for number in range(4):
        set_clock(monkeypatch, sensors, number * QUIET_SECONDS)
        if number < 3:
            path = put(patient, face, f"{number}.jpg")
            os.utime(path, (time.time() - age_seconds,) * 2)
        else:
            (patient.paths.raw / "Happy" / "1.jpg").unlink()
        result = tick(new_images_sensor, patient, instance, cursor)
        cursor = result.cursor
        assert "quiet for 0 s of 60 s" in reason(result)

    set_clock(monkeypatch, sensors, 4 * QUIET_SECONDS - 5.4)
    result = tick(new_images_sensor, patient, instance, cursor)
    assert "quiet for 55 s" in reason(result)
    set_clock(monkeypatch, sensors, 4 * QUIET_SECONDS + 1)
    assert len(tick(new_images_sensor, patient, instance, result.cursor).run_requests) == 1


def test_a_run_before_the_clock_was_set_back_delays_nothing(
    settings: PipelineSettings, instance: dg.DagsterInstance, face: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise nothing would start until an hour after its end."""
    put(settings, face)
    run(instance, event=FAILED)
    set_clock(monkeypatch, sensors, -5 * 3600)

    assert len(tick(new_images_sensor, settings, instance).run_requests) == 1


def test_a_clock_that_was_set_back_starts_over(
    patient: PipelineSettings, instance: dg.DagsterInstance, face: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise nothing would start until it is that late again."""
    put(patient, face)
    set_clock(monkeypatch, sensors, 10**6)
    cursor = tick(new_images_sensor, patient, instance).cursor
    set_clock(monkeypatch, sensors, 0)
    cursor = tick(new_images_sensor, patient, instance, cursor).cursor
    set_clock(monkeypatch, sensors, QUIET_SECONDS + 1)

    assert len(tick(new_images_sensor, patient, instance, cursor).run_requests) == 1


def test_an_empty_folder_is_skipped(settings: PipelineSettings, instance: dg.DagsterInstance) -> None:
    assert "no images" in reason(tick(new_images_sensor, settings, instance))


def test_trained_images_are_not_new(settings: PipelineSettings, instance: dg.DagsterInstance, face: bytes) -> None:
    """Whoever started the training."""
    put(settings, face)
    learn(settings, instance)
    assert "Nothing new" in reason(tick(new_images_sensor, settings, instance))

    put(settings, face, "b.jpg")
    assert len(tick(new_images_sensor, settings, instance).run_requests) == 1


@pytest.mark.parametrize(("job_name", "selection"), [("retrain", None), ("__ASSET_JOB", None)])
def test_one_training_at_a_time(
    settings: PipelineSettings, instance: dg.DagsterInstance, face: bytes, job_name: str, selection: str | None
) -> None:
    """A run of the UI counts as well; one that does not train does not."""
    put(settings, face)
    created = run(instance, job_name, selection=selection)
    assert "queued or running" in reason(tick(new_images_sensor, settings, instance))

    instance.delete_run(created.run_id)
    run(instance, "__ASSET_JOB", selection="drift_report")
    assert len(tick(new_images_sensor, settings, instance).run_requests) == 1


def test_a_failed_run_is_retried_after_an_hour(
    settings: PipelineSettings, instance: dg.DagsterInstance, face: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images that no run has learned from are not forgotten, and not requested every minute either."""
    put(settings, face)
    first = tick(new_images_sensor, settings, instance)
    run(instance, event=FAILED)
    assert "trained no model" in reason(tick(new_images_sensor, settings, instance, first.cursor))

    set_clock(monkeypatch, sensors, RETRY_SECONDS + 10)
    later = tick(new_images_sensor, settings, instance, first.cursor)
    assert len(later.run_requests) == 1
    assert later.run_requests[0].run_key != first.run_requests[0].run_key


@pytest.mark.parametrize("job_name", ["retrain", "__ASSET_JOB"])
def test_a_canceled_run_is_not_started_again(
    settings: PipelineSettings,
    instance: dg.DagsterInstance,
    face: bytes,
    job_name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By no sensor, until there are other images."""
    put(settings, face)
    report_drift(instance, **INCIDENT)
    cursor = tick(new_images_sensor, settings, instance).cursor
    run(instance, job_name, CANCELED)
    set_clock(monkeypatch, sensors, 2 * COOLDOWN_SECONDS)

    for sensor in (new_images_sensor, drift_sensor):
        assert "was canceled" in reason(tick(sensor, settings, instance, cursor))
    put(settings, face, "b.jpg")
    assert len(tick(new_images_sensor, settings, instance, cursor).run_requests) == 1


def test_labels_wait_for_each_other(
    settings: PipelineSettings, instance: dg.DagsterInstance, face: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels alone start a run six hours after the last one; other new images do not wait for that."""
    put(settings, face)
    learn(settings, instance)
    run(instance, event=dg.DagsterEventType.RUN_SUCCESS)
    put(settings, face, "feedback/1.jpg")
    result = tick(new_images_sensor, settings, instance)
    assert "less than 6 h ago" in reason(result)

    set_clock(monkeypatch, sensors, COOLDOWN_SECONDS - 3600)
    assert reason(tick(new_images_sensor, settings, instance)).endswith("; 60 minutes left.")
    set_clock(monkeypatch, sensors, COOLDOWN_SECONDS + 10)
    (request,) = tick(new_images_sensor, settings, instance, result.cursor).run_requests
    assert request.tags["trigger"] == "labels"
    set_clock(monkeypatch, sensors, 0)
    put(settings, face, "b.jpg")
    (request,) = tick(new_images_sensor, settings, instance).run_requests
    assert request.tags["trigger"] == "new_images"


def test_drift_sensor_explains_why_it_waits(
    settings: PipelineSettings, instance: dg.DagsterInstance, face: bytes
) -> None:
    """No report, a report by hand, no alarm, one alarm, nothing new to learn from."""
    put(settings, face)
    assert "no drift report" in reason(tick(drift_sensor, settings, instance))
    instance.report_runless_asset_event(dg.AssetMaterialization("drift_report"))
    assert "no drift report" in reason(tick(drift_sensor, settings, instance))

    quiet = {"state": "input_drift", "cause": "images are darker.", "is_incident": False}
    report_drift(instance, **quiet, alarms_in_a_row=0)
    assert "input_drift: images are darker." in reason(tick(drift_sensor, settings, instance))
    report_drift(instance, **INCIDENT | {"is_incident": False}, alarms_in_a_row=1)
    assert "two consecutive alarms open an incident" in reason(tick(drift_sensor, settings, instance))

    report_drift(instance, **INCIDENT)
    learn(settings, instance)
    assert "Label recent images" in reason(tick(drift_sensor, settings, instance))


def test_an_incident_requests_one_run_in_six_hours(
    settings: PipelineSettings, instance: dg.DagsterInstance, face: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same incident requests no second run, and one with newer images waits."""
    put(settings, face)
    report_drift(instance, **INCIDENT)
    (request,) = tick(drift_sensor, settings, instance).run_requests
    assert request.tags["trigger"] == "drift"

    run(instance, event=dg.DagsterEventType.RUN_SUCCESS, tags=request.tags)
    put(settings, face, "b.jpg")
    result = tick(drift_sensor, settings, instance)
    assert "less than 6 h ago" in reason(result)
    set_clock(monkeypatch, sensors, COOLDOWN_SECONDS + 10)
    assert len(tick(drift_sensor, settings, instance, result.cursor).run_requests) == 1


def test_requests_carry_the_chosen_run_config(
    settings: PipelineSettings, instance: dg.DagsterInstance, face: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("ops: {trained_cnn: {config: {preset: quick}}}")
    put(settings, face)

    chosen = settings.model_copy(update={"run_config": path})
    (request,) = tick(new_images_sensor, chosen, instance).run_requests

    assert request.run_config == {"ops": {"trained_cnn": {"config": {"preset": "quick"}}}}


@pytest.mark.parametrize("cursor", ["garbage", "[1]", "5", '{"signature": "x"}', '{"since": "now"}'])
def test_a_cursor_that_a_person_edited_counts_as_empty(
    settings: PipelineSettings, instance: dg.DagsterInstance, face: bytes, cursor: str
) -> None:
    put(settings, face)

    assert json.loads(tick(new_images_sensor, settings, instance, cursor).cursor).keys() == {"signature", "since"}


def test_a_cursor_without_a_time_starts_over(
    settings: PipelineSettings, instance: dg.DagsterInstance, face: bytes
) -> None:
    """Even if it names the present files."""
    put(settings, face)
    cursor = json.loads(tick(new_images_sensor, settings, instance).cursor) | {"since": "now"}

    assert isinstance(
        json.loads(tick(new_images_sensor, settings, instance, json.dumps(cursor)).cursor)["since"], float
    )


def test_other_files_are_another_request(settings: PipelineSettings, instance: dg.DagsterInstance, face: bytes) -> None:
    """Dagster would drop it under the key of the first one, whose run may have been deleted."""
    put(settings, face)
    (first,) = tick(new_images_sensor, settings, instance).run_requests
    put(settings, face, "b.jpg")
    (second,) = tick(new_images_sensor, settings, instance).run_requests

    assert first.run_key != second.run_key


def test_the_next_attempt_counts_from_the_end_of_the_last(
    settings: PipelineSettings, instance: dg.DagsterInstance, face: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that took longer than the time between two attempts is not repeated at once."""
    put(settings, face)
    cursor = tick(new_images_sensor, settings, instance).cursor
    failed = dg.DagsterEvent(FAILED.value, "retrain")
    instance.report_dagster_event(failed, run(instance).run_id, timestamp=time.time() + 2 * RETRY_SECONDS)

    set_clock(monkeypatch, sensors, 2 * RETRY_SECONDS + 300)
    assert "ended 5 minutes ago" in reason(tick(new_images_sensor, settings, instance, cursor))
    set_clock(monkeypatch, sensors, 3 * RETRY_SECONDS + 300)
    assert len(tick(new_images_sensor, settings, instance, cursor).run_requests) == 1


def test_an_incident_waits_for_no_other_run(
    settings: PipelineSettings, instance: dg.DagsterInstance, face: bytes
) -> None:
    """A run for new images may be a minute old; labels alone are enough to learn from."""
    put(settings, face)
    learn(settings, instance)
    run(instance, event=dg.DagsterEventType.RUN_SUCCESS, tags={"trigger": "new_images"})
    report_drift(instance, **INCIDENT)
    put(settings, face, "feedback/1.jpg")

    assert len(tick(drift_sensor, settings, instance).run_requests) == 1


def test_an_incident_is_named_while_it_waits(
    patient: PipelineSettings, instance: dg.DagsterInstance, face: bytes
) -> None:
    put(patient, face)
    report_drift(instance, **INCIDENT)

    skipped = reason(tick(drift_sensor, patient, instance))

    assert skipped.startswith("Incident: predictions shift to sad. Files are changing")


def test_folders_are_those_of_the_users_own_classes(
    settings: PipelineSettings, instance: dg.DagsterInstance, face: bytes
) -> None:
    """A model that was trained on them has learned what both sensors see."""
    settings.paths.classes.write_text("- asleep\n- {name: awake, folders: [happy]}\n")
    put(settings, face)
    learn(settings, instance)
    report_drift(instance, **INCIDENT)

    assert "trained on these 1 files" in reason(tick(new_images_sensor, settings, instance))
    assert "trained on the 1 labelled images" in reason(tick(drift_sensor, settings, instance))
