"""Recordings of people go through the whole pipeline, and the report says what their scores hold for."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.layout import DataPaths
from emotion_assets.demo.faces import draw_frame
from emotion_assets.steps.registry.registry import Registry
from tests.test_classes_round_trip import materialize


@pytest.mark.parametrize(("num_people", "num_frames"), [(1, 40), (5, 12), (20, 4)])
def test_a_recording_trains(tmp_path: Path, num_people: int, num_frames: int) -> None:
    """One person is divided, with a warning; five or twenty are kept apart, which a blocking check confirms."""
    paths = DataPaths(tmp_path)
    for person in range(num_people):
        for emotion in EMOTIONS:
            for number in range(num_frames):
                path = paths.raw / f"subject_{person}" / emotion / f"{number}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(draw_frame(emotion, person, number))

    result = materialize(paths)

    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    report = (paths.evaluation_report(Registry(paths.models).require_champion().name) / "report.html").read_text()
    is_divided = num_people == 1
    assert result.success
    assert checks["splits_hold_every_class"].passed
    assert checks["splits_share_no_subject"].passed == checks["splits_share_no_image"].passed == (not is_divided)
    assert is_divided == (checks["splits_share_no_subject"].severity == dg.AssetCheckSeverity.WARN)
    assert ("A recording was divided" in report) == is_divided
    assert ("By subject" in report) == (num_people == 20)
