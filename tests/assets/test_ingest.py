from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg

from emotion_assets.assets.ingest import greyscale_splits, raw_images, splits_share_no_image, splits_share_no_subject
from emotion_assets.resources import PipelineSettings
from emotion_assets.steps.ingest.scan import folder_state


def test_images_become_splits_with_data_versions(settings: PipelineSettings, drawn_root: Path) -> None:
    """The checks pass, and Dagster records which catalogue the splits were made from."""
    shutil.copytree(drawn_root / "raw", settings.paths.raw)

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [raw_images, greyscale_splits, splits_share_no_image, splits_share_no_subject],
            resources={"settings": settings},
            instance=instance,
        )

    catalogue, splits = (result.asset_materializations_for_node(name)[0] for name in ("raw_images", "greyscale_splits"))
    assert result.success
    assert {check.check_name: check.passed for check in result.get_asset_check_evaluations()} == {
        "every_class_has_images": True,
        "few_files_are_rejected": True,
        "splits_hold_every_class": True,
        "images_show_something": True,
        "splits_share_no_image": True,
        "splits_share_no_subject": True,
    }
    assert catalogue.tags
    assert splits.tags
    assert catalogue.metadata["num_happy"].value == 40
    assert catalogue.metadata["folder_signature"].value == folder_state(settings.paths.raw).signature
    assert splits.tags["dagster/input_data_version/raw_images"] == catalogue.tags["dagster/data_version"]


def test_an_empty_class_and_rejected_files_are_reported(settings: PipelineSettings, face: bytes) -> None:
    for number in range(4):
        path = settings.paths.raw / "Happy" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(face if number < 2 else b"not an image")

    result = dg.materialize([raw_images], resources={"settings": settings})

    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert not checks["every_class_has_images"].passed
    assert not checks["few_files_are_rejected"].passed
    assert checks["few_files_are_rejected"].severity == dg.AssetCheckSeverity.WARN
    assert str(checks["every_class_has_images"].description).startswith(
        "There is no usable image of angry, fear, sad, surprise.\n- 2 with unsupported_format, such as raw/Happy/2.jpg: "
    )
