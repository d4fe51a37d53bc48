"""The configuration of a training run and its presets."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from emotion_assets.core.errors import UnusableDataError


class TrainingConfig(BaseModel):
    """Everything that shapes a training run apart from its data; the defaults are the preset `standard`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=60, ge=1, description="Passes over the train split.")
    max_minutes: float | None = Field(
        default=None,
        gt=0,
        description="Time limit. The learning-rate schedule is fitted to it, so the run is not cut off.",
    )
    batch_size: int = Field(default=128, ge=2, description="Images per optimizer step. Halve it if memory runs out.")
    learning_rate: float = Field(
        default=0.014, gt=0, description="Peak learning rate of Muon, which trains the convolution filters."
    )
    adam_learning_rate: float = Field(
        default=1.4e-3, gt=0, description="Peak learning rate of AdamW, which trains stem, normalization and head."
    )
    weight_decay: float = Field(default=0.1, ge=0, description="Decoupled weight decay, relative to the learning rate.")
    warmup_fraction: float = Field(
        default=0.1, ge=0, lt=1, description="Fraction of the run with a rising learning rate; a linear decay follows."
    )
    width: int = Field(
        default=64, ge=4, description="Channels of the first stage; the other two have 2 and 4 times as many."
    )
    num_blocks: int = Field(
        default=2, ge=1, le=8, description="Convolutional blocks in each of the second and third stages."
    )
    augmentation: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Augmentation strength. Short runs need less; long runs, and faces from other sources, need 1.",
    )
    dropout: float = Field(default=0.15, ge=0, lt=1, description="Dropout on the embedding.")
    label_smoothing: float = Field(default=0.05, ge=0, lt=1, description="Label smoothing of the cross-entropy.")
    class_weighting: str = Field(
        default="none",
        pattern="^(none|balanced)$",
        description="none or balanced, which weights classes by the inverse square root of their frequency.",
    )
    averaging_fraction: float = Field(
        default=0.02,
        ge=0,
        lt=1,
        description="Window of the weight average, as a fraction of all steps; 0 keeps the last weights.",
    )
    is_progressive: bool = Field(
        default=True,
        description="Progressive resizing: 32 px for half of the run, 40 px until 80 %, then 48 px. Saves time.",
    )
    num_teachers: int = Field(
        default=0, ge=0, le=4, description="Networks that are trained first and then distilled into the final one."
    )
    corrects_orientation: bool = Field(
        default=False,
        description="Train a second network that detects rotated and inverted faces, so that they are corrected first.",
    )
    quantize_int8: bool = Field(
        default=True,
        description="Run 8-bit convolutions, up to three times as fast, if the validation log loss rises by 0.01 at "
        "most.",
    )
    seed: int = Field(
        default=0,
        ge=0,
        le=2_000_000_000,
        description="Same data, configuration, seed and processor give the same weights, unless max_minutes is set.",
    )
    devices: int = Field(
        default=1, ge=1, description="Data-parallel processes: one per GPU, or on CPU cores if there are fewer GPUs."
    )
    precision: str = Field(
        default="auto",
        pattern="^(auto|32-true|bf16-mixed|16-mixed)$",
        description="auto, 32-true, bf16-mixed or 16-mixed; auto picks 16 bits where the device is faster with them.",
    )


class Preset(StrEnum):
    """The names of PRESETS, as the launchpad offers them."""

    quick = "quick"
    standard = "standard"
    long = "long"


class Tracker(StrEnum):
    """Trackers to use besides CSV and TensorBoard."""

    none = "none"
    wandb = "wandb"
    mlflow = "mlflow"


PRESETS: Final[dict[str, TrainingConfig]] = {
    "quick": TrainingConfig(
        epochs=8,
        width=48,
        augmentation=0.3,
        dropout=0.2,
        label_smoothing=0.1,
        learning_rate=0.03,
        adam_learning_rate=2e-3,
        is_progressive=False,
    ),
    "standard": TrainingConfig(),
    "long": TrainingConfig(
        epochs=60,
        width=80,
        num_blocks=3,
        dropout=0.3,
        label_smoothing=0.1,
        learning_rate=0.02,
        adam_learning_rate=2e-3,
        num_teachers=2,
        corrects_orientation=True,
    ),
}


def training_config(preset: str, **overrides: Any) -> TrainingConfig:
    """Return the configuration of `preset` with `overrides`; those that are None keep the preset's value.

    Raises:
        UnusableDataError: there is no such preset or field, a value is out of range, or the batch is too small.
    """
    if preset not in PRESETS:
        raise UnusableDataError(f"There is no preset {preset!r}. Use one of {', '.join(PRESETS)}.")
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        config = TrainingConfig(**PRESETS[preset].model_dump() | given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UnusableDataError(f"{first['loc'][0]} cannot be {first['input']!r}. {first['msg']}.") from error
    if config.devices > 1 and config.batch_size < 2 * config.devices:
        raise UnusableDataError(
            f"A batch of {config.batch_size} images cannot be split among {config.devices} processes, which need two "
            "images each. Raise batch_size or lower devices."
        )
    return config
