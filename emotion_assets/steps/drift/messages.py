"""Describe a drift verdict in sentences."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import pandas as pd

from emotion_assets.core.features import EMOTION_COLUMN
from emotion_assets.core.image_stats import STATISTICS
from emotion_assets.steps.drift.attribution import Attribution
from emotion_assets.steps.drift.subpopulations import Subpopulation
from emotion_assets.steps.reference.corruptions import UNCHANGED

_PHRASES: Final = {
    "brightness": ("brighter", "darker"),
    "contrast": ("higher in contrast", "lower in contrast"),
    "sharpness": ("sharper", "softer"),
    "detail": ("richer in detail", "blurrier"),
    "entropy": ("richer in gray levels", "poorer in gray levels"),
    "edge_fraction": ("richer in edges", "poorer in edges"),
    "noise": ("noisier", "smoother"),
    "clipped_fraction": ("more often pure black or white", "less often pure black or white"),
    "top_minus_bottom": ("brighter at the top", "brighter at the bottom"),
    "mirror_symmetry": ("more symmetric", "less symmetric"),
    "center_minus_border": ("brighter in the center", "darker in the center"),
    "horizontal_gradient_fraction": ("more vertical in structure", "more horizontal in structure"),
    "eyes_minus_cheeks": ("brighter at the eyes", "darker at the eyes"),
}


def describe_inputs(drifted: Collection[str], shifts: Mapping[str, float]) -> str:
    """Describe the three strongest shifts of the inputs among the columns that drifted."""
    changed = [name for name in STATISTICS if name in drifted]
    strongest = sorted(changed, key=lambda name: -abs(shifts[name]))[:3]
    phrases = [_PHRASES[name][shifts[name] < 0] for name in strongest]
    return f"images are {', '.join(phrases)} than the validation images"


def describe_predictions(current: pd.DataFrame, reference: pd.DataFrame) -> str:
    """Describe which class is predicted more often."""
    change = {
        emotion: float((current[EMOTION_COLUMN] == emotion).mean() - (reference[EMOTION_COLUMN] == emotion).mean())
        for emotion in sorted({*current[EMOTION_COLUMN], *reference[EMOTION_COLUMN]})
    }
    gained = max(change, key=lambda emotion: change[emotion])
    return f"predictions shift to {gained} ({change[gained]:+.0%})"


def describe_attribution(attribution: Attribution, part: Subpopulation | None) -> str:
    """Name the known corruptions that the images resemble, those of a part of them, and their cost."""
    names = _join(attribution)
    if part:
        names += f", and about {part.fraction:.0%} of them {part.corruption} as well"
    cost = _describe_cost(attribution.loss, is_lower_bound=attribution.is_lower_bound)
    return f"images look {names}, which costs {cost} on validation images"


def describe_unexplained(attribution: Attribution, loss: float, error: float) -> str:
    """Say that no known corruption explains the images, and what they may cost."""
    nearest = f" (the nearest: {names})" if (names := _join(attribution)) else ""
    cost = f"{100 * loss:.0f} ± {100 * error:.0f} points of accuracy"
    if loss < 0.01:
        cost = f"up to {100 * error:.0f} points of accuracy"
    return f"no known corruption explains the images{nearest}; they may cost {cost}"


def _join(attribution: Attribution) -> str:
    return " or ".join(name for name in attribution.corruptions if name != UNCHANGED)


def describe_subpopulation(subpopulation: Subpopulation) -> str:
    """Describe the fraction of corrupted images and their cost."""
    return (
        f"about {subpopulation.fraction:.0%} of the images look {subpopulation.corruption}, "
        f"which costs {_describe_cost(subpopulation.loss)}"
    )


def _describe_cost(loss: float, *, is_lower_bound: bool = False) -> str:
    if loss < 0.01:
        return "hardly any accuracy"
    return f"{'at least' if is_lower_bound else 'about'} {100 * loss:.0f} points of accuracy"
