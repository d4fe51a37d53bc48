"""The data assets: the catalogue of `raw/`, and the splits made of it.

The rules are in `steps.ingest` and `steps.splits`.
"""

import dagster as dg
from pydantic import Field

from emotion_assets.assets.history import with_history
from emotion_assets.assets.metadata import as_metadata, check_result, table
from emotion_assets.resources import Engine, Settings, code_version, uses_data

SIGNATURE = "folder_signature"
"""Metadata key: the state of `raw/` that was read. Without it the sensor asks for another run, an hour later."""
SIGNATURE_WITHOUT_FEEDBACK = "folder_signature_without_feedback"
_MAX_LEFT_OUT = 0.1

_CATALOGUE_CHECKS = [
    dg.AssetCheckSpec("every_class_has_images", asset="raw_images", description="Every class has a usable image."),
    dg.AssetCheckSpec(
        "few_files_are_rejected",
        asset="raw_images",
        description="At most 10 % of the files are rejected, and as few have conflicting labels.",
    ),
]
_SPLITS_CHECKS = [
    dg.AssetCheckSpec(
        "splits_hold_every_class", asset="greyscale_splits", description="Every split holds every class."
    ),
    dg.AssetCheckSpec(
        "images_show_something",
        asset="greyscale_splits",
        description="At most 1 % of the images are black, white, flat, or equal to another one.",
        blocking=True,
    ),
]


class IngestRunConfig(dg.Config):
    """Where images are read."""

    engine: Engine = Field(Engine.local, description="local, or ray for a cluster (RAY_ADDRESS).")


@dg.asset(
    kinds={"python", "file"},
    code_version=code_version("ingest"),
    deps=["image_files", "collected_feedback"],
    check_specs=_CATALOGUE_CHECKS,
)
@uses_data(writes=("catalogue",))
def raw_images(context: dg.AssetExecutionContext, settings: Settings, config: IngestRunConfig) -> dg.MaterializeResult:  # type: ignore[type-arg]  # a check needs it bare
    """The labelled images in `raw/`, as a catalogue with one row per file.

    Only files that are new since the last run are read. Rejected files are listed with the reason; nothing is moved or
    deleted.
    """
    from emotion_assets.steps.ingest.catalogue import ingest_images
    from emotion_assets.steps.ingest.report import count_key

    report = ingest_images(settings.paths, engine=config.engine)
    summary = report.summary()
    metadata = as_metadata(summary, settings)
    if report.state:
        metadata |= {
            SIGNATURE: report.state.signature,
            SIGNATURE_WITHOUT_FEEDBACK: report.state.signature_without_feedback,
        }
    missing = [emotion for emotion in report.emotions if not summary.values[count_key(emotion)]]
    fraction = float(summary.values["rejected_fraction"])
    conflict_fraction = float(summary.values["conflict_fraction"])
    left_out = (
        f"{fraction:.0%} of the files are rejected." if fraction > _MAX_LEFT_OUT else "",
        f"{conflict_fraction:.0%} of the images have conflicting labels." if conflict_fraction > _MAX_LEFT_OUT else "",
    )
    problems = (
        f"There is no usable image of {', '.join(missing)}." if missing else "",
        " ".join(filter(None, left_out)),
    )
    not_used = summary.lists.get("not_used", ())
    results = [
        check_result(problem and "\n- ".join([problem, *not_used]), is_error=is_error, check_name=spec.name)
        for spec, problem, is_error in zip(_CATALOGUE_CHECKS, problems, (True, False), strict=True)
    ]
    metadata = with_history(context, metadata, [count_key(emotion) for emotion in report.emotions], unit="images")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(report.fingerprint), metadata=metadata, check_results=results
    )


@dg.asset(
    kinds={"numpy", "dataset"},
    code_version=code_version("ingest", "splits"),
    deps=[raw_images],
    check_specs=_SPLITS_CHECKS,
)
@uses_data("catalogue", writes=("splits",))
def greyscale_splits(settings: Settings) -> dg.MaterializeResult:  # type: ignore[type-arg]  # a check needs it bare
    """64×64 grayscale faces in train, val and test (80/10/10 of each class).

    An image keeps its split permanently. Near-duplicates share one, and so do all images of a known subject. An image
    with two labels is excluded.
    """
    from emotion_assets.steps.splits.checks import find_empty_images
    from emotion_assets.steps.splits.make import make_splits

    report = make_splits(settings.paths)
    empty = find_empty_images(settings.paths)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(report.fingerprint),
        metadata=as_metadata(report.summary(), settings),
        check_results=[
            dg.AssetCheckResult(check_name=_SPLITS_CHECKS[0].name, passed=report.holds_every_class),
            check_result(
                empty.problem,
                is_error=empty.is_error,
                check_name=_SPLITS_CHECKS[1].name,
                metadata={"images": table(empty.rows)},
            ),
        ],
    )


@dg.asset_check(asset=greyscale_splits, blocking=True)
@uses_data("catalogue", "splits")
def splits_share_no_image(settings: Settings) -> dg.AssetCheckResult:
    """No image, re-encoded, cropped or mirrored, is in two splits. Compares all stored pixels from scratch."""
    from emotion_assets.steps.splits.checks import find_leaking_images

    leaks = find_leaking_images(settings.paths)
    return check_result(leaks.problem, is_error=leaks.is_error, metadata={"pairs": table(leaks.rows)})


@dg.asset_check(asset=greyscale_splits, blocking=True)
@uses_data("catalogue", "splits")
def splits_share_no_subject(settings: Settings) -> dg.AssetCheckResult:
    """No subject is in two splits, so that the scores hold for other people. Looks up folders and tables again."""
    from emotion_assets.steps.splits.checks import find_leaking_subjects

    leaks = find_leaking_subjects(settings.paths)
    return check_result(leaks.problem, is_error=leaks.is_error, metadata={"subjects": table(leaks.rows)})
