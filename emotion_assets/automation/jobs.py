"""The jobs over assets: retrain, check for drift, collect labels, compact the prediction log."""

import dagster as dg

from emotion_assets.assets.drift import drift_report
from emotion_assets.assets.feedback import collected_feedback, prediction_history

retrain = dg.define_asset_job(
    "retrain",
    selection=dg.AssetSelection.all() - dg.AssetSelection.assets(collected_feedback, prediction_history),
    description="Ingest raw/, split, train and evaluate; if the gate accepts the model, pack it and check for drift.",
)
check_drift = dg.define_asset_job(
    "check_drift",
    selection=dg.AssetSelection.assets(drift_report),
    description="Compare the latest predictions with the validation images of the deployed model.",
)
collect_feedback = dg.define_asset_job(
    "collect_feedback",
    selection=dg.AssetSelection.assets(collected_feedback),
    description="Copy labelled images to raw/<Class>/feedback/.",
)
compact_log = dg.define_asset_job(
    "compact_log",
    selection=dg.AssetSelection.assets(prediction_history),
    description="Compact past hours of the prediction log into Parquet.",
)

JOBS = [retrain, check_drift, collect_feedback, compact_log]
