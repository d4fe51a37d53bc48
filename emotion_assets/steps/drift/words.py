"""What a drift verdict says in words."""

from __future__ import annotations

from typing import Final

import pandas as pd

from emotion_assets.core.emotions import EMOTIONS
from emotion_assets.core.logged_values import EMOTION_COLUMN
from emotion_assets.steps.drift.likeness import Likeness
from emotion_assets.steps.drift.parts import Part
from emotion_assets.steps.drift.tiers import INPUT_COLUMNS, INPUT_LIMIT
from emotion_assets.steps.training.rehearsal import UNCHANGED

_WORDS: Final = {
    "brightness": ("brighter", "darker"),
    "contrast": ("richer in contrast", "flatter in contrast"),
    "sharpness": ("sharper", "softer"),
    "detail": ("richer in detail", "blurrier"),
    "entropy": ("richer in grey levels", "poorer in grey levels"),
    "edge_fraction": ("fuller of edges", "poorer in edges"),
    "noise": ("noisier", "smoother"),
    "clipped_fraction": ("more often pure black or white", "less often pure black or white"),
    "top_minus_bottom": ("brighter at the top", "brighter at the bottom"),
    "mirror_symmetry": ("more symmetrical", "less symmetrical"),
    "centre_minus_border": ("brighter in the centre", "darker in the centre"),
    "horizontal_gradient_fraction": ("more upright in structure", "more level in structure"),
    "eyes_minus_cheeks": ("brighter at the eyes", "darker at the eyes"),
}


def changes_in_words(
    current: pd.DataFrame,
    reference: pd.DataFrame,
    p_values: dict[str, float],
    shifts: dict[str, float],
    has_input_change: bool,
    has_answer_change: bool,
) -> list[str]:
    """Say how pictures and answers differ from the reference, one sentence for each tier that has changed."""
    parts = []
    if has_input_change:
        changed = [name for name in INPUT_COLUMNS if p_values[name] < INPUT_LIMIT]
        strongest = sorted(changed, key=lambda name: -abs(shifts[name]))[:3]
        words = [_WORDS[name][shifts[name] < 0] for name in strongest]
        parts.append(f"pictures are {', '.join(words)} than the validation faces")
    if has_answer_change:
        share = {
            emotion: float((current[EMOTION_COLUMN] == emotion).mean() - (reference[EMOTION_COLUMN] == emotion).mean())
            for emotion in EMOTIONS
        }
        gained = max(share, key=lambda emotion: share[emotion])
        parts.append(f"answers shift to {gained} ({share[gained]:+.0%})")
    return parts


def likeness_in_words(looks: Likeness | None, leaves_answers: bool) -> list[str]:
    """Name the rehearsed changes that the pictures look like, and what they cost; nothing where they look like none."""
    if looks is None or not looks.is_a_change:
        return []
    words = f"pictures look {' or '.join(change for change in looks.changes if change != UNCHANGED)}"
    if leaves_answers:
        return [f"{words}, but answers changed more than that explains"]
    return [f"{words}, which cost {_cost_in_words(looks.loss)} on validation faces"]


def _cost_in_words(loss: float) -> str:
    return f"about {100 * loss:.0f} points of accuracy" if loss >= 0.01 else "hardly any accuracy"


def part_in_words(part: Part | None) -> list[str]:
    """Say how many pictures look like a change that costs much; nothing where no such part was found."""
    if part is None:
        return []
    return [f"about {part.share:.0%} of the pictures look {part.change}, which costs {_cost_in_words(part.loss)}"]
