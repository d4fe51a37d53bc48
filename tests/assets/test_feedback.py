from __future__ import annotations

import json

import dagster as dg

from emotion_assets.assets.feedback import collected_feedback, prediction_history
from emotion_assets.resources import PipelineSettings


def test_labels_without_images_are_reported(settings: PipelineSettings, face: bytes) -> None:
    """One label has an image, two have none: too few to train on."""
    for name in ("a" * 40, "b" * 40, "c" * 40):
        path = settings.paths.feedback / name[:2] / f"{name}.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"prediction_id": name, "emotion": "sad", "time": "2026-01-01T00:00:00.000+00:00"}))
    stored = settings.paths.image_log / "2026-01-01" / f"{'a' * 40}.jpeg"
    stored.parent.mkdir(parents=True)
    stored.write_bytes(face)

    result = dg.materialize([collected_feedback, prediction_history], resources={"settings": settings})

    (materialization,) = result.asset_materializations_for_node("collected_feedback")
    (check,) = result.get_asset_check_evaluations()
    assert materialization.metadata["num_new_files"].value == 1
    assert not check.passed
    assert (settings.paths.raw / "Sad" / "feedback" / stored.name).read_bytes() == face
