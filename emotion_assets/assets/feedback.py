"""What the service leaves behind: its log as Parquet, and labels that people gave as images.

Labels and kept images become files in `raw/<Emotion>/feedback/`, which the new-images sensor sees. Whether a
model trained on them is any better is decided by the gate.
"""

import dagster as dg

from emotion_assets.resources import DataPaths


@dg.asset(
    group_name="emotions",
    kinds={"python", "file"},
    check_specs=[
        dg.AssetCheckSpec(
            "labels_have_images",
            asset="collected_feedback",
            description="At least half of the labels have an image to learn from; warns that others teach nothing.",
        )
    ],
)
def collected_feedback(places: DataPaths) -> dg.MaterializeResult:  # type: ignore[type-arg]  # a check needs it bare
    """Images that people labelled on the page or over HTTP, copied into `raw/<Emotion>/feedback/`.

    Only where the service keeps images (`EMOTION_KEEP_IMAGES=1`); a label without an image is counted.
    """
    from emotion_assets.steps.feedback.labels import collect_feedback

    collected = collect_feedback(places.feedback_dir, places.predictions_dir, places.raw_dir)
    numbers = {
        "num_labels": collected.num_labels,
        "num_new_files": collected.num_new_files,
        "num_files": collected.num_files,
        "num_without_image": collected.num_without_image,
        "num_set_aside": collected.num_set_aside,
    }
    check = dg.AssetCheckResult(
        passed=collected.num_without_image * 2 <= collected.num_labels,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=numbers,
    )
    return dg.MaterializeResult(
        metadata={**numbers, "raw": dg.MetadataValue.path(places.raw_dir)}, check_results=[check]
    )


@dg.asset(group_name="emotions", kinds={"parquet"})
def prediction_history(places: DataPaths) -> dg.MaterializeResult[None]:
    """The prediction log's past hours as Parquet, an hour a file; drift reports read it like the log itself."""
    from emotion_assets.steps.drift.compaction import compact_log

    compacted = compact_log(places.predictions_dir)
    return dg.MaterializeResult(
        metadata={
            "num_segments": compacted.num_segments,
            "num_new_records": compacted.num_new_records,
            "num_torn_lines": compacted.num_torn_lines,
            "num_hours": compacted.num_hours,
            "size_bytes": compacted.num_bytes,
        }
    )
