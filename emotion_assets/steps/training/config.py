"""The choices of a training run, and the presets that make them for you."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

from emotion_assets.core.errors import UnusableDataError


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Everything that shapes a training run apart from its data."""

    epochs: int
    width: int
    dropout: float
    num_blocks: int = 2
    """Convolutional blocks of the second and of the third stage; the first has two."""
    is_progressive: bool = True
    """Whether early steps see smaller images: 32 px until 30 %, 40 px until 60 %, then 48 px."""
    max_minutes: float | None = None
    batch_size: int = 128
    learning_rate: float = 0.02
    """Peak rate of Muon on the inner filters."""
    adam_learning_rate: float = 2e-3
    """Peak rate of AdamW on stem, normalization and head."""
    weight_decay: float = 0.1
    """Fraction of a weight lost in a step, in units of the learning rate."""
    warmup_fraction: float = 0.1
    label_smoothing: float = 0.1
    averaging_fraction: float = 0.02
    """The weights that are kept are a running mean over about this fraction of the steps of all `epochs`, but a tenth of
    those done at most; 0 keeps the last ones."""
    num_teachers: int = 0
    """Networks of the same kind that are trained first; the one that is kept learns from their answers as well."""
    corrects_orientation: bool = False
    """Whether a small network of its own first tells which way up a face is, and whether it is a negative, so that it
    can be put right."""
    seed: int = 0
    devices: int = 1
    """Processes that fraction each batch: one for each GPU, or for each core where there are fewer GPUs."""
    precision: str = "auto"
    quantize_int8: bool = True
    """Whether the model that runs has 8-bit convolutions, if it answers as well with them."""


PRESETS: Final = {
    "quick": TrainingConfig(epochs=8, width=48, dropout=0.2, learning_rate=0.03, is_progressive=False),
    "standard": TrainingConfig(epochs=55, width=64, dropout=0.3),
    "long": TrainingConfig(epochs=60, width=80, dropout=0.3, num_blocks=3, num_teachers=2, corrects_orientation=True),
}


def training_config(preset: str, **overrides: Any) -> TrainingConfig:
    """Return the configuration of `preset` with `overrides`; those that are None keep the preset's value.

    Raises:
        UnusableDataError: there is no such preset, or a batch has too few images for its processes.
    """
    if preset not in PRESETS:
        raise UnusableDataError(f"There is no preset {preset!r}. Use one of {', '.join(PRESETS)}.")
    given = {name: value for name, value in overrides.items() if value is not None}
    config = dataclasses.replace(PRESETS[preset], **given)
    if config.devices > 1 and config.batch_size < 2 * config.devices:
        raise UnusableDataError(
            f"A batch of {config.batch_size} images cannot be shared by {config.devices} processes, which need two "
            "each. Raise batch_size or lower devices."
        )
    return config
