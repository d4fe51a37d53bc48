"""The training asset: a network fitted to the train split.

Reads the splits, leaves a bundle below `models/`. Whether the network is any good is not decided here:
`evaluation_report` does that, and only an accepted one is served.
"""

import dagster as dg
from pydantic import Field

from emotion_assets.assets.data import greyscale_splits
from emotion_assets.assets.metadata import image, ingested_as, version_of
from emotion_assets.core.bundle import read_manifest, runtime_precision
from emotion_assets.core.classes import EMOTIONS
from emotion_assets.resources import DataPaths, code_version


class TrainingRunConfig(dg.Config):
    """A preset, and what to change in it; a field left empty keeps the preset's value."""

    preset: str = Field("standard", description="quick (about 2 minutes), standard (about 15) or long (about 2 hours).")
    epochs: int | None = Field(None, ge=1, description="Passes over the train split.")
    max_minutes: float | None = Field(
        None, gt=0, description="Shapes the learning-rate schedule so that the run ends by then; it is not cut off."
    )
    batch_size: int | None = Field(
        None, ge=2, description="Images a step; 128 by default. Halve it if memory is short."
    )
    learning_rate: float | None = Field(
        None, gt=0, description="Peak rate of Muon on the filters; 0.02 by default, 0.03 for quick."
    )
    width: int | None = Field(
        None, ge=4, description="Channels of the first stage; later ones have 2 and 4 times as many."
    )
    num_blocks: int | None = Field(
        None, ge=1, le=8, description="Convolutional blocks of the second and of the third stage; 2, 3 for long."
    )
    seed: int | None = Field(
        None,
        ge=0,
        le=2_000_000_000,
        description="Same data, configuration, seed and processor: same weights, unless max_minutes is set.",
    )
    devices: int | None = Field(
        None, ge=1, description="Processes that fraction each batch, on as many GPUs, or on cores if there are fewer."
    )
    dropout: float | None = Field(None, ge=0, lt=1, description="Fraction of the embedding hidden in training.")
    adam_learning_rate: float | None = Field(
        None, gt=0, description="Peak rate of AdamW on everything but the filters."
    )
    weight_decay: float | None = Field(
        None, ge=0, description="Fraction of a weight lost in a step, in learning rates."
    )
    warmup_fraction: float | None = Field(None, ge=0, lt=1, description="Part of the run in which the rate rises.")
    label_smoothing: float | None = Field(None, ge=0, lt=1, description="Doubt about the labels; they are noisy.")
    averaging_fraction: float | None = Field(
        None, ge=0, lt=1, description="Fraction of the steps over which the kept weights are averaged; 0.02 by default."
    )
    num_teachers: int | None = Field(
        None, ge=0, le=4, description="Networks trained first, whose answers this one learns from, too; 2 for long."
    )
    corrects_orientation: bool | None = Field(
        None, description="Whether faces on their side, upside down or negative are put right first; true for long."
    )
    is_progressive: bool | None = Field(None, description="Whether early steps see smaller images, which is cheaper.")
    precision: str | None = Field(
        None, description="auto, 32-true, bf16-mixed or 16-mixed; auto takes what the device does well."
    )
    quantize_int8: bool | None = Field(
        None, description="Whether 8-bit convolutions run if their answers are as good: up to three times as fast."
    )
    tracker: str = Field("none", description="none, wandb or mlflow: where curves go beside CSV and TensorBoard.")


@dg.asset(
    group_name="emotions",
    kinds={"pytorch", "pytorchlightning"},
    code_version=code_version("training"),
    deps=[greyscale_splits],
)
def trained_cnn(
    context: dg.AssetExecutionContext, places: DataPaths, config: TrainingRunConfig
) -> dg.MaterializeResult[None]:
    """A convolutional network fitted to the train split, calibrated on val, exported as a bundle.

    An interrupted run continues from its last epoch when it is started again with the same data and configuration.
    """
    from emotion_assets.steps.evaluation.figures import learning_curve_figure
    from emotion_assets.steps.training.run import train_bundle

    ingest = ingested_as(context.instance, greyscale_splits.key)
    choices = config.model_dump()
    bundle_dir = train_bundle(
        places.splits_dir,
        places.models_dir,
        places.reports_dir / "training",
        preset=choices.pop("preset"),
        tracker=choices.pop("tracker"),
        overrides=choices,
        code_version=code_version("training"),
        log=context.log.info,
    )
    manifest = read_manifest(bundle_dir)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(manifest.version),
        metadata={
            **manifest.metrics,
            "version": manifest.version,
            "temperature": manifest.temperature,
            "epochs": len(manifest.training["history"]),
            "num_parameters": manifest.training["num_parameters"],
            "arithmetic": runtime_precision(manifest),
            "seconds": manifest.training["seconds"],
            "cpu_seconds": manifest.training["cpu_seconds"],
            "resumed_from_epoch": manifest.training["resumed_from_epoch"],
            "learning_curves": image(learning_curve_figure(manifest.training["history"]), "learning curves"),
            "configuration": dg.MetadataValue.json(manifest.configuration),
            "data_fingerprint": manifest.data_fingerprint,
            "bundle": dg.MetadataValue.path(bundle_dir),
            **ingest,
        },
    )


@dg.asset_check(asset=trained_cnn, description="The network does better than guessing on validation faces.")
def network_beats_guessing(context: dg.AssetCheckExecutionContext, places: DataPaths) -> dg.AssetCheckResult:
    """Fail when the macro-F1 is not above that of guessing, which means that nothing was learnt."""
    version = version_of(context.instance, trained_cnn.key) or places.registry.candidate()
    manifest = read_manifest(places.models_dir / version)
    macro_f1 = manifest.metrics["val/macro_f1"]
    return dg.AssetCheckResult(passed=macro_f1 > 1 / len(EMOTIONS), metadata={"val/macro_f1": macro_f1})
