"""The feedback asset: labels that people gave to predictions, as photographs for the next training.

Reads the service's labels and kept pictures, leaves files in `raw/<Emotion>/feedback/`, which the
new-images sensor sees. Whether a model trained on them is any better is decided by the gate.
"""

import dagster as dg

from emotion_assets.resources import Places


@dg.asset(group_name="emotions", kinds={"python", "file"})
def collected_feedback(places: Places) -> dg.MaterializeResult[None]:
    """Pictures that people labelled on the page or over HTTP, copied into `raw/<Emotion>/feedback/`.

    Only where the service keeps pictures (`EMOTION_KEEP_IMAGES=1`); a label without a picture is counted.
    """
    from emotion_assets.steps.drift.feedback import collect_feedback

    collected = collect_feedback(places.feedback_dir, places.predictions_dir, places.raw_dir)
    return dg.MaterializeResult(
        metadata={
            "num_labels": collected.num_labels,
            "num_new_files": collected.num_new_files,
            "num_files": collected.num_files,
            "num_without_picture": collected.num_without_picture,
            "raw": dg.MetadataValue.path(places.raw_dir),
        }
    )


@dg.asset_check(asset=collected_feedback, description="Most labels have a picture to learn from.")
def labels_have_pictures(places: Places) -> dg.AssetCheckResult:
    """Warn when labels come in whose pictures were not kept: they can be counted, but teach nothing."""
    from emotion_assets.steps.drift.feedback import collect_feedback

    collected = collect_feedback(places.feedback_dir, places.predictions_dir, places.raw_dir)
    return dg.AssetCheckResult(
        passed=collected.num_without_picture * 2 <= collected.num_labels,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"num_labels": collected.num_labels, "num_without_picture": collected.num_without_picture},
    )
