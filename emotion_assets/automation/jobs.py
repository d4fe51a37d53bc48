"""What runs: make a new model from what is in `raw/`, look for drift, take labels in."""

import dagster as dg

from emotion_assets.assets.drift import drift_report
from emotion_assets.assets.feedback import collected_feedback, prediction_history

retrain = dg.define_asset_job(
    "retrain",
    selection=dg.AssetSelection.all() - dg.AssetSelection.assets(collected_feedback, prediction_history),
    description="Take stock of raw/, split, train, evaluate; if the gate accepts the model, pack it and check drift.",
)

check_drift = dg.define_asset_job(
    "check_drift",
    selection=dg.AssetSelection.assets(drift_report),
    description="Compare the latest predictions with the accepted model's validation faces.",
)

collect_feedback = dg.define_asset_job(
    "collect_feedback",
    selection=dg.AssetSelection.assets(collected_feedback),
    description="Turn labels that people gave into images in raw/<Emotion>/feedback/.",
)

compact_log = dg.define_asset_job(
    "compact_log",
    selection=dg.AssetSelection.assets(prediction_history),
    description="Turn the prediction log's past hours into Parquet.",
)
