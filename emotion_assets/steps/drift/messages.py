"""What a drift verdict says in words."""

from __future__ import annotations

from typing import Final

import pandas as pd

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.features import EMOTION_COLUMN
from emotion_assets.steps.drift.attribution import Attribution
from emotion_assets.steps.drift.subpopulations import Subpopulation
from emotion_assets.steps.drift.tiers import INPUT_COLUMNS, INPUT_LIMIT
from emotion_assets.steps.reference.corruptions import UNCHANGED

_PHRASES: Final = {
    "brightness": ("brighter", "darker"),
    "contrast": ("richer in contrast", "flatter in contrast"),
    "sharpness": ("sharper", "softer"),
    "detail": ("richer in detail", "blurrier"),
    "entropy": ("richer in gray levels", "poorer in gray levels"),
    "edge_fraction": ("fuller of edges", "poorer in edges"),
    "noise": ("noisier", "smoother"),
    "clipped_fraction": ("more often pure black or white", "less often pure black or white"),
    "top_minus_bottom": ("brighter at the top", "brighter at the bottom"),
    "mirror_symmetry": ("more symmetrical", "less symmetrical"),
    "centre_minus_border": ("brighter in the center", "darker in the center"),
    "horizontal_gradient_fraction": ("more upright in structure", "more level in structure"),
    "eyes_minus_cheeks": ("brighter at the eyes", "darker at the eyes"),
}


def describe_changes(
    current: pd.DataFrame,
    reference: pd.DataFrame,
    p_values: dict[str, float],
    shifts: dict[str, float],
    has_input_drift: bool,
    has_prediction_drift: bool,
) -> list[str]:
    """Say how images and answers differ from the reference, one sentence for each tier that has changed."""
    parts = []
    if has_input_drift:
        changed = [name for name in INPUT_COLUMNS if p_values[name] < INPUT_LIMIT]
        strongest = sorted(changed, key=lambda name: -abs(shifts[name]))[:3]
        words = [_PHRASES[name][shifts[name] < 0] for name in strongest]
        parts.append(f"images are {', '.join(words)} than the validation faces")
    if has_prediction_drift:
        fraction = {
            emotion: float((current[EMOTION_COLUMN] == emotion).mean() - (reference[EMOTION_COLUMN] == emotion).mean())
            for emotion in EMOTIONS
        }
        gained = max(fraction, key=lambda emotion: fraction[emotion])
        parts.append(f"answers shift to {gained} ({fraction[gained]:+.0%})")
    return parts


def describe_attribution(attribution: Attribution | None, is_unexplained: bool) -> list[str]:
    """Name the known corruptions that the images look like, and what they cost; nothing where they look like none."""
    if attribution is None or not attribution.is_corruption:
        return []
    words = f"images look {' or '.join(change for change in attribution.changes if change != UNCHANGED)}"
    if is_unexplained:
        return [f"{words}, but answers changed more than that explains"]
    return [f"{words}, which cost {_describe_cost(attribution.loss)} on validation faces"]


def _describe_cost(loss: float) -> str:
    return f"about {100 * loss:.0f} points of accuracy" if loss >= 0.01 else "hardly any accuracy"


def describe_subpopulation(part: Subpopulation | None) -> list[str]:
    """Say how many images look like a change that costs much; nothing where no such part was found."""
    if part is None:
        return []
    return [f"about {part.fraction:.0%} of the images look {part.change}, which costs {_describe_cost(part.loss)}"]
