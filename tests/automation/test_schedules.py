from __future__ import annotations

import dagster as dg
import pytest

from emotion_assets.automation.schedules import SCHEDULES
from tests.automation.helpers import run


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
def test_a_schedule_requests_no_second_run(schedule: dg.ScheduleDefinition) -> None:
    """Behind a training of hours, one run of each kind waits, not dozens."""
    with dg.instance_for_test() as instance:
        context = dg.build_schedule_context(instance=instance)
        assert schedule.evaluate_tick(context).run_requests
        run(instance, schedule.job_name)
        second = schedule.evaluate_tick(context)

    assert not second.run_requests
    assert "queued or running" in str(second.skip_message)
