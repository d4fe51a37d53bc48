"""The code location: its names are a contract, the lineage is one graph, and loading it is cheap."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import dagster as dg
import pytest
import yaml

from emotion_assets.definitions import defs

CHECKOUT = Path(__file__).parents[1]
EXTERNAL = {"image_files", "external_images", "labels", "prediction_log"}
RETRAINED = {"raw_images", "greyscale_splits", "trained_cnn", "evaluation_report", "drift_report", "emotion_bento"}


def names(keys: object) -> set[str]:
    return {key.to_user_string() for key in keys}  # type: ignore[attr-defined]


def test_assets_and_checks() -> None:
    """The six assets stay, each with a check; the two that guard the data and the champion block."""
    graph = defs.resolve_asset_graph()
    blocking = {key.name for key in graph.asset_check_keys if graph.get(key).blocking}

    assert names(graph.get_all_asset_keys()) == RETRAINED | EXTERNAL | {"collected_feedback", "prediction_history"}
    assert names(graph.external_asset_keys) == EXTERNAL
    assert {key.asset_key.to_user_string() for key in graph.asset_check_keys} == RETRAINED | {"collected_feedback"}
    assert blocking == {
        "candidate_is_not_worse",
        "images_show_something",
        "splits_share_no_image",
        "splits_share_no_subject",
    }


def test_the_lineage_is_one_connected_graph() -> None:
    """No asset stands alone, and labels of predictions lead back to the images."""
    graph = defs.resolve_asset_graph()
    neighbors = defaultdict(set)
    for key in graph.get_all_asset_keys():
        for parent in graph.get(key).parent_keys:
            neighbors[key].add(parent)
            neighbors[parent].add(key)
    reached = {dg.AssetKey("labels")}
    for _ in range(len(neighbors)):
        reached |= {other for key in reached for other in neighbors[key]}

    assert reached == set(graph.get_all_asset_keys())
    assert names(graph.get(dg.AssetKey("raw_images")).parent_keys) == {"image_files", "collected_feedback"}
    assert names(graph.get(dg.AssetKey("prediction_log")).parent_keys) == {"emotion_bento"}
    assert all(graph.get(dg.AssetKey(name)).description for name in EXTERNAL)


def test_jobs_sensors_and_schedules() -> None:
    """Nothing starts by itself before it is switched on."""
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
    assert {sensor.minimum_interval_seconds for sensor in repository.sensor_defs} == {60}
    assert {schedule.name for schedule in repository.schedule_defs} == {
        "daily_drift_check",
        "feedback_collection",
        "log_compaction",
    }
    automation = [*repository.sensor_defs, *repository.schedule_defs]
    assert {each.default_status.value for each in automation} == {"STOPPED"}
    assert names(defs.resolve_job_def("retrain").asset_layer.executable_asset_keys) == RETRAINED


def test_every_way_of_loading_names_the_same_module() -> None:
    """workspace.yaml, [tool.dagster] and [tool.dg.project] agree."""
    workspace = yaml.safe_load((CHECKOUT / "workspace.yaml").read_text())["load_from"][0]["python_module"]
    tools = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]

    assert workspace["module_name"] == tools["dagster"]["module_name"] == "emotion_assets.definitions"
    assert tools["dg"]["project"]["code_location_target_module"] == "emotion_assets.definitions"
    assert workspace["location_name"] == tools["dagster"]["code_location_name"] == "emotion_assets"
    assert tools["dg"]["project"]["code_location_name"] == "emotion_assets"


def test_the_instance_shows_logs_and_overdue_checks() -> None:
    instance = yaml.safe_load((CHECKOUT / "dagster_home" / "dagster.yaml").read_text())

    assert instance["python_logs"]["managed_python_loggers"] == ["emotion_assets"]
    assert instance["freshness"] == {"enabled": True}


def test_the_instance_retries_killed_runs_one_at_a_time() -> None:
    """Dead runs are noticed and started again, once; a rejected model is not trained a second time."""
    instance = yaml.safe_load((CHECKOUT / "dagster_home" / "dagster.yaml").read_text())

    assert instance["run_monitoring"]["enabled"]
    assert instance["run_retries"] == {"enabled": True, "max_retries": 1, "retry_on_asset_or_op_failure": False}
    assert instance["concurrency"]["runs"]["max_concurrent_runs"] == 1


def test_constraints_pin_every_package_without_naming_a_host() -> None:
    lines = (CHECKOUT / "constraints.txt").read_text().splitlines()

    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", line) for line in lines)
    assert "torch==2.13.0" in lines


def test_every_module_has_its_test_file() -> None:
    """Tests mirror the packages one to one."""
    missing = []
    for package, tests in (("emotion_assets", "tests"), ("emotion_service", "tests/service")):
        for path in (CHECKOUT / package).rglob("*.py"):
            mirrored = CHECKOUT / tests / path.relative_to(CHECKOUT / package).with_name(f"test_{path.name}")
            if path.read_text().strip() and not mirrored.exists():
                missing.append(str(mirrored.relative_to(CHECKOUT)))

    assert not missing


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import emotion_assets.core.classifier, emotion_assets.core.image_stats", ["torch", "dagster", "pandas"]),
        ("import emotion_service.app", ["torch", "dagster", "pandas", "pytorch_lightning", "evidently"]),
        ("import emotion_assets.definitions", ["torch", "pytorch_lightning", "evidently", "bentoml", "matplotlib"]),
    ],
)
def test_imports_stay_light_and_warn_of_nothing(statement: str, forbidden: list[str]) -> None:
    """Neither the service nor the definitions load what only a step needs."""
    script = f"{statement}\nimport sys\nprint([name for name in {forbidden} if name in sys.modules])"

    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )

    assert result.stdout.strip() == "[]"
