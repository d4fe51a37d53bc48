from __future__ import annotations

import subprocess
import sys
import tomllib
from datetime import timedelta
from pathlib import Path

import dagster as dg
import yaml

from emotion_assets.assets.drift import drift_report
from emotion_assets.definitions import defs

CHECKOUT = Path(__file__).parents[2]
ASSETS = {"raw_images", "greyscale_splits", "trained_cnn", "evaluation_report", "drift_report", "emotion_bento"}


def test_the_six_assets_are_there_each_with_a_check() -> None:
    """Asset keys are part of the contract, and every asset that judges something has a check."""
    graph = defs.resolve_asset_graph()

    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == ASSETS | {
        "collected_feedback",
        "prediction_history",
    }
    assert {key.asset_key.to_user_string() for key in graph.asset_check_keys} == ASSETS | {"collected_feedback"}


def test_the_gate_and_the_leak_check_block() -> None:
    """Without these two checks in place, a leak or a rejected model could continue."""
    graph = defs.resolve_asset_graph()
    blocking = {key.name for key in graph.asset_check_keys if graph.get(key).blocking}

    assert blocking == {"candidate_is_not_worse", "splits_share_no_image"}


def test_jobs_sensors_and_schedule_are_there() -> None:
    """Their names are part of the contract; nothing starts by itself before it is switched on."""
    repository = defs.get_repository_def()

    assert {job.name for job in repository.get_all_jobs()} >= {
        "retrain",
        "check_drift",
        "collect_feedback",
        "compact_log",
        "rollback",
        "list_models",
        "clean_models",
        "measure_baseline",
        "audit_labels",
        "tune",
    }
    assert {sensor.name for sensor in repository.sensor_defs} == {"new_images_sensor", "drift_sensor"}
    assert {schedule.name for schedule in repository.schedule_defs} == {
        "daily_drift_check",
        "feedback_collection",
        "log_compaction",
    }
    assert {schedule.default_status.value for schedule in repository.schedule_defs} == {"STOPPED"}
    assert {sensor.default_status.value for sensor in repository.sensor_defs} == {"STOPPED"}
    retrain = {key.to_user_string() for key in defs.resolve_job_def("retrain").asset_layer.executable_asset_keys}
    assert retrain == ASSETS


def test_every_way_of_loading_names_the_same_module() -> None:
    """workspace.yaml, [tool.dagster] and [tool.dg.project] say the same."""
    workspace = yaml.safe_load((CHECKOUT / "workspace.yaml").read_text())["load_from"][0]["python_module"]
    tools = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]

    assert workspace["module_name"] == tools["dagster"]["module_name"] == "emotion_assets.definitions"
    assert tools["dg"]["project"]["code_location_target_module"] == "emotion_assets.definitions"
    assert workspace["location_name"] == tools["dagster"]["code_location_name"] == "emotion_assets"
    assert tools["dg"]["project"]["code_location_name"] == "emotion_assets"


def test_loading_the_definitions_warns_of_nothing() -> None:
    """In a fresh process, with warnings as errors."""
    subprocess.run([sys.executable, "-W", "error", "-c", "import emotion_assets.definitions"], cwd=CHECKOUT, check=True)


def test_constraints_pin_every_package_without_naming_a_host() -> None:
    """Each line is name==version."""
    import re

    lines = (CHECKOUT / "constraints.txt").read_text().splitlines()

    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", line) for line in lines)
    assert "torch==2.13.0" in lines


def test_a_drift_check_that_nobody_runs_is_overdue() -> None:
    """The drift report is expected daily, and Dagster's instance of the project looks whether it came."""
    policy = drift_report.get_asset_spec().freshness_policy
    instance = yaml.safe_load((CHECKOUT / "dagster_home" / "dagster.yaml").read_text())

    assert policy == dg.FreshnessPolicy.time_window(warn_window=timedelta(hours=26), fail_window=timedelta(hours=50))
    assert instance["freshness"] == {"enabled": True}
