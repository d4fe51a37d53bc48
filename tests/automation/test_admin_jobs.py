from __future__ import annotations

import dagster as dg
import pytest

from emotion_assets.automation.admin_jobs import JOBS
from emotion_assets.core.errors import EmotionError
from emotion_assets.resources import PipelineSettings

BY_NAME = {job.name: job for job in JOBS}


@pytest.mark.parametrize("name", ["list_models", "clean_models"])
def test_jobs_on_an_empty_registry_succeed(settings: PipelineSettings, name: str) -> None:
    assert BY_NAME[name].execute_in_process(resources={"settings": settings}).success


@pytest.mark.parametrize("name", ["rollback", "measure_baseline", "audit_labels", "tune"])
def test_jobs_without_data_say_what_to_do(settings: PipelineSettings, name: str) -> None:
    """Each fails with a message that names the remedy, not with a traceback of its own."""
    result = BY_NAME[name].execute_in_process(resources={"settings": settings}, raise_on_error=False)

    (failure,) = [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_FAILURE]
    assert not result.success
    assert issubclass(EmotionError, Exception)
    assert "Error" in str(failure.event_specific_data.error.cause.cls_name)  # type: ignore[union-attr]
