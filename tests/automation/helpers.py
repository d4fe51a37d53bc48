"""Runs and materializations as Dagster would record them."""

from __future__ import annotations

import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from emotion_assets.resources import PipelineSettings

QUIET_SECONDS = 60


def put(settings: PipelineSettings, face: bytes, name: str = "a.jpg") -> Path:
    path = settings.paths.raw / "Happy" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(face)
    return path


def set_clock(monkeypatch: pytest.MonkeyPatch, module: ModuleType, seconds_ahead: float) -> None:
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: time.time() + seconds_ahead))


def materialized(
    instance: dg.DagsterInstance, key: str, version: str, inputs: dict[str, str] | None = None, **metadata: Any
) -> None:
    """Report a materialization with the data versions that Dagster would record."""
    tags = {"dagster/data_version": version}
    tags |= {f"dagster/input_data_version/{name}": value for name, value in (inputs or {}).items()}
    instance.report_runless_asset_event(dg.AssetMaterialization(key, metadata=metadata, tags=tags))


def trained(instance: dg.DagsterInstance, **signatures: str) -> None:
    """Report a model that goes back to these signatures of `raw/`."""
    materialized(instance, "raw_images", "r", **signatures)
    materialized(instance, "greyscale_splits", "s", {"raw_images": "r"})
    materialized(instance, "trained_cnn", "m", {"greyscale_splits": "s"})


def run(
    instance: dg.DagsterInstance,
    job_name: str = "retrain",
    event: dg.DagsterEventType | None = None,
    tags: dict[str, str] | None = None,
    selection: str | None = None,
) -> dg.DagsterRun:
    """Create a run, and end it with an event if one is given."""
    from emotion_assets.definitions import defs

    created = instance.create_run_for_job(
        defs.resolve_job_def(job_name),
        status=dg.DagsterRunStatus.STARTED,
        tags=tags,
        asset_selection=frozenset(map(dg.AssetKey, selection.split())) if selection else None,
    )
    if event:
        instance.report_dagster_event(dg.DagsterEvent(event.value, job_name), created.run_id)
    return created
