"""External assets: what people and the service write, so that the lineage shows the whole loop.

Dagster materializes none of them. Labels of predictions come back as images for the next training.
"""

import dagster as dg

from emotion_assets.assets.packing import emotion_bento

image_files = dg.AssetSpec("image_files", description="Labelled image files in `raw/`, added by people.")
external_images = dg.AssetSpec(
    "external_images", description="Images from another source in `external/`, added by people."
)
labels = dg.AssetSpec("labels", description="Labels that people give to predictions, written by the service.")
prediction_log = dg.AssetSpec(
    "prediction_log",
    deps=[emotion_bento],
    description="One record for each prediction, written by the service that serves the bento.",
)
