"""The training asset: a network fitted to the train split. `evaluation_report` decides whether it is served."""

from typing import Annotated, Any

import dagster as dg
from pydantic import Field, create_model

from emotion_assets.assets.ingest import greyscale_splits
from emotion_assets.assets.metadata import as_metadata
from emotion_assets.core.bundle import read_manifest
from emotion_assets.resources import Engine, Settings, code_version, uses_data
from emotion_assets.steps.training.config import Preset, Tracker, TrainingConfig, training_config

_FIELDS: dict[str, Any] = {
    "preset": (
        Preset,
        Field(Preset.standard, description="quick (about 5 minutes), standard (about 15) or long (about 2 hours)."),
    ),
    "engine": (Engine, Field(Engine.local, description="local, or ray for a cluster (RAY_ADDRESS).")),
    "tracker": (Tracker, Field(Tracker.none, description="Tracker to use besides CSV and TensorBoard.")),
    **{
        name: (Annotated[field.annotation | None, *field.metadata, Field(description=field.description)], None)  # type: ignore[operator]
        for name, field in TrainingConfig.model_fields.items()
    },
}
TrainingRunConfig = create_model(
    "TrainingRunConfig",
    __base__=dg.Config,
    __doc__="A preset, and what to change in it; a field left empty keeps the preset's value.",
    **_FIELDS,
)
"""The fields of TrainingConfig, all optional, for the launchpad."""

_CHECK = dg.AssetCheckSpec(
    "network_beats_chance", asset="trained_cnn", description="Macro-F1 on validation images is above chance."
)


@dg.asset(
    kinds={"pytorch", "pytorchlightning"},
    code_version=code_version("reference", "training"),
    deps=[greyscale_splits],
    check_specs=[_CHECK],
)
@uses_data("splits", writes=("models", "reports/training"))
def trained_cnn(
    settings: Settings,
    config: TrainingRunConfig,  # type: ignore[valid-type]  # created above
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # a check needs it bare
    """A convolutional network fitted to the train split, calibrated on val, exported as a bundle.

    An interrupted run resumes from its last epoch when it is started again with the same data and configuration.
    """
    from emotion_assets.steps.training.run import bundle_summary, train_bundle

    overrides = config.model_dump()  # type: ignore[attr-defined]
    preset, engine, tracker = (overrides.pop(name) for name in ("preset", "engine", "tracker"))
    version = code_version("reference", "training")
    bundle_dir = train_bundle(
        settings.paths, training_config(preset, **overrides), code_version=version, tracker=tracker, engine=engine
    )
    manifest = read_manifest(bundle_dir)
    is_above_chance = manifest.metrics["val/macro_f1"] > 1 / len(manifest.emotions)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(manifest.version),
        metadata=as_metadata(bundle_summary(bundle_dir), settings),
        check_results=[dg.AssetCheckResult(passed=is_above_chance)],
    )
