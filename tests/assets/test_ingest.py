from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg
import pytest

from emotion_assets.assets.ingest import greyscale_splits, raw_images, splits_share_no_image, splits_share_no_subject
from emotion_assets.resources import PipelineSettings
from emotion_assets.steps.ingest.scan import folder_state
from emotion_assets.steps.splits.splits import read_manifest


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
    assert catalogue.metadata["images/happy"].value == 40
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


def test_many_label_conflicts_are_reported(settings: PipelineSettings, face: bytes) -> None:
    """A delivery in the wrong folder excludes the images of another class."""
    for folder in ("Happy", "Sad"):
        (settings.paths.raw / folder).mkdir(parents=True)
        (settings.paths.raw / folder / "1.jpg").write_bytes(face)

    result = dg.materialize([raw_images], resources={"settings": settings})

    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert checks["few_files_are_rejected"].description == "100% of the images have conflicting labels."


@pytest.mark.parametrize(
    ("kept", "missing", "named"),
    [
        ({"Happy": 40}, "angry, fear, sad, surprise", "angry 0, fear 0, sad 0, surprise 0"),
        (dict.fromkeys(("Angry", "Fear", "Happy", "Sad", "Surprise"), 2), "", "angry 2, fear 2, happy 2, sad 2"),
        (dict.fromkeys(("Angry", "Fear", "Happy", "Sad"), 40), "surprise", "surprise 0"),
    ],
    ids=["one class", "ten images", "a missing class"],
)
def test_too_few_images_stop_the_run_at_the_splits(
    settings: PipelineSettings, drawn_root: Path, kept: dict[str, int], missing: str, named: str
) -> None:
    """The catalogue says which class is missing, the splits say how many images each needs; nothing is written."""
    for folder, number in kept.items():
        (settings.paths.raw / folder).mkdir(parents=True)
        for path in sorted((drawn_root / "raw" / folder).rglob("*.jpg"))[:number]:
            shutil.copy(path, settings.paths.raw / folder)

    result = dg.materialize([raw_images, greyscale_splits], resources={"settings": settings}, raise_on_error=False)

    (failure,) = (event for event in result.all_events if event.is_step_failure)
    error = failure.step_failure_data.error
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert failure.step_key == "greyscale_splits"
    assert error
    assert f"Too few usable images to split: {named}" in str(error.cause or error)
    assert checks["every_class_has_images"].passed is not bool(missing)
    assert f"There is no usable image of {missing}." in str(checks["every_class_has_images"].description) or not missing
    assert not (settings.paths.splits / "manifest.json").exists()


def test_two_spellings_of_a_folder_are_one_class(settings: PipelineSettings, drawn_root: Path) -> None:
    """`Happy/` and `happy/` give the splits that one folder would give."""
    shutil.copytree(drawn_root / "raw", settings.paths.raw)
    (settings.paths.raw / "happy").mkdir()
    for path in sorted((settings.paths.raw / "Happy").rglob("*.jpg"))[::2]:
        path.rename(settings.paths.raw / "happy" / path.name)

    result = dg.materialize([raw_images, greyscale_splits], resources={"settings": settings})

    fingerprints = [
        read_manifest(splits_dir)["fingerprint"] for splits_dir in (settings.paths.splits, drawn_root / "splits")
    ]
    assert result.success
    assert result.asset_materializations_for_node("raw_images")[0].metadata["images/happy"].value == 40
    assert fingerprints[0] == fingerprints[1]
