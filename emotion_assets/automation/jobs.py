"""The two jobs: make a new model from what is in `raw/`, and look for drift."""

import dagster as dg

from emotion_assets.assets.drift import drift_report

retrain = dg.define_asset_job(
    "retrain",
    selection=dg.AssetSelection.all(),
    description="Take stock of raw/, split, train, evaluate; if the gate accepts the model, pack it and check drift.",
)

check_drift = dg.define_asset_job(
    "check_drift",
    selection=dg.AssetSelection.assets(drift_report),
    description="Compare the latest predictions with the accepted model's validation faces.",
)
