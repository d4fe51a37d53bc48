"""The feedback assets: labelled images for the next training, and the compacted prediction log."""

import dagster as dg

from emotion_assets.assets.metadata import as_metadata
from emotion_assets.resources import Settings, uses_data

_LABELS_HAVE_IMAGES = dg.AssetCheckSpec(
    "labels_have_images",
    asset="collected_feedback",
    description="At least half of the labels have a stored image to train on.",
)


@dg.asset(kinds={"python", "file"}, check_specs=[_LABELS_HAVE_IMAGES], deps=["labels"])
@uses_data("predictions", writes=("raw", "feedback"))
def collected_feedback(settings: Settings) -> dg.MaterializeResult:  # type: ignore[type-arg]  # a check needs it bare
    """Images that people labelled on the page or over HTTP, copied to `raw/<Class>/feedback/`.

    Needs a service that stores images (`EMOTION_STORE_IMAGES=1`); a label without an image is only counted.
    """
    from emotion_assets.steps.feedback.labels import collect_labels

    collected = collect_labels(settings.paths)
    check = dg.AssetCheckResult(
        passed=collected.num_without_image * 2 <= collected.num_labels, severity=dg.AssetCheckSeverity.WARN
    )
    return dg.MaterializeResult(metadata=as_metadata(collected.summary(), settings), check_results=[check])


@dg.asset(kinds={"parquet"}, deps=["prediction_log"])
@uses_data(writes=("predictions",))
def prediction_history(settings: Settings) -> dg.MaterializeResult[None]:
    """Past hours of the prediction log as Parquet, one file per hour; drift reports read it like the log itself."""
    from emotion_assets.steps.drift.compaction import compact_log

    report = compact_log(settings.paths.predictions)
    return dg.MaterializeResult(metadata=as_metadata(report.summary(), settings))
