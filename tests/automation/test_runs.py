from __future__ import annotations

import dagster as dg
import pytest

from emotion_assets.automation.runs import latest_training, trained_on, trains, unfinished_runs
from tests.automation.helpers import materialized, run, trained


@pytest.mark.parametrize(
    ("job_name", "selection", "expected", "reads_raw"),
    [
        ("retrain", None, True, True),
        ("__ASSET_JOB", None, True, True),
        ("__ASSET_JOB", "raw_images greyscale_splits trained_cnn", True, True),
        ("__ASSET_JOB", "trained_cnn", True, False),
        ("__ASSET_JOB", "drift_report", False, False),
        ("check_drift", None, False, False),
    ],
)
def test_runs_that_train(
    instance: dg.DagsterInstance, job_name: str, selection: str | None, expected: bool, reads_raw: bool
) -> None:
    """The job `retrain`, and the UI's own job where it includes the model; a run on older splits read no new image."""
    created = run(instance, job_name, selection=selection)

    assert trains(created) is expected
    assert [each.run_id for each in unfinished_runs(instance)] == [created.run_id]
    assert (latest_training(instance) is not None) is reads_raw


@pytest.mark.parametrize(
    ("job_name", "step"), [("__ASSET_JOB", "splits_share_no_image"), ("retrain", "raw_images")], ids=["a check", "part"]
)
def test_a_run_without_the_step_does_not_train(job_name: str, step: str) -> None:
    """A check that is run alone selects no asset, and a job may be run in part."""
    assert not trains(dg.DagsterRun(job_name=job_name, run_id="x", step_keys_to_execute=[step]))


def test_latest_training_by_tag(instance: dg.DagsterInstance) -> None:
    first = run(instance, tags={"trigger": "drift"})
    run(instance)

    found = latest_training(instance, {"trigger": "drift"})
    assert found
    assert found.dagster_run.run_id == first.run_id


def test_a_model_goes_back_to_a_catalogue_by_data_versions(instance: dg.DagsterInstance) -> None:
    assert trained_on(instance) is None
    trained(instance, folder_signature="x")
    found = trained_on(instance)
    assert found
    assert found.metadata["folder_signature"].value == "x"

    materialized(instance, "raw_images", "newer", folder_signature="y")
    assert trained_on(instance) is None
    materialized(instance, "greyscale_splits", "s2", {"raw_images": "newer"})
    assert trained_on(instance) is None
    materialized(instance, "trained_cnn", "m2", {"greyscale_splits": "s2"})
    assert trained_on(instance) is not None
