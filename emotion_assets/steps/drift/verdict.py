"""Have the pictures changed, and have the answers? Two questions, each with a set false-alarm rate.

Every logged number is compared with the reference by a Kolmogorov-Smirnov test, the predicted emotion by a
chi-squared test; the smallest p-value of a tier counts, corrected for the number of columns (Bonferroni).
Changed inputs alone often do no harm, so they warn; changed answers follow the loss of accuracy, so they act.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy.stats import chi2_contingency, ks_2samp

from emotion_assets.core.emotions import EMOTIONS
from emotion_assets.core.image_stats import STATISTICS
from emotion_assets.core.logged_values import EMOTION_COLUMN, PROBABILITY_COLUMNS

MIN_PICTURES: Final = 50
"""Below this a window says nothing: neither drift nor its absence."""
FALSE_ALARM_RATE: Final = 0.01
"""For each tier and window."""

INPUT_COLUMNS: Final = STATISTICS
ANSWER_COLUMNS: Final = (*PROBABILITY_COLUMNS, EMOTION_COLUMN)

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
}


@dataclass(frozen=True, slots=True)
class DriftVerdict:
    """The answer to both questions, with every number behind it."""

    state: str
    """`too_few`, `ok`, `inputs_changed` or `answers_changed` (the last includes changed inputs)."""
    num_current: int
    num_reference: int
    p_values: dict[str, float]
    """By column, uncorrected."""
    shifts: dict[str, float]
    """By numeric column: difference of the means in reference standard deviations."""
    has_input_change: bool
    has_answer_change: bool
    cause: str
    """What changed, in words."""

    def as_record(self) -> dict[str, Any]:
        """Return the verdict for JSON."""
        return asdict(self)


def judge(current: pd.DataFrame, reference: pd.DataFrame, false_alarm_rate: float = FALSE_ALARM_RATE) -> DriftVerdict:
    """Compare the logged values of recent pictures with those of the reference.

    Args:
        current: one row a picture, with the columns of LOGGED_COLUMNS.
        reference: the same, of validation faces.
        false_alarm_rate: how often each tier may raise an alarm when nothing changed.
    """
    if len(current) < MIN_PICTURES or len(reference) < MIN_PICTURES:
        cause = (
            f"Too few pictures to tell: {len(current)} current and {len(reference)} reference ones, "
            f"{MIN_PICTURES} of each are needed."
        )
        return DriftVerdict("too_few", len(current), len(reference), {}, {}, False, False, cause)
    numeric = (*INPUT_COLUMNS, *PROBABILITY_COLUMNS)
    p_values = {name: _ks(current[name], reference[name]) for name in numeric}
    p_values[EMOTION_COLUMN] = _chi_squared(current[EMOTION_COLUMN], reference[EMOTION_COLUMN])
    shifts = {name: _shift(current[name], reference[name]) for name in numeric}
    has_input_change = min(p_values[name] for name in INPUT_COLUMNS) < false_alarm_rate / len(INPUT_COLUMNS)
    has_answer_change = min(p_values[name] for name in ANSWER_COLUMNS) < false_alarm_rate / len(ANSWER_COLUMNS)
    state = "answers_changed" if has_answer_change else "inputs_changed" if has_input_change else "ok"
    cause = _cause(current, reference, p_values, shifts, has_input_change, has_answer_change, false_alarm_rate)
    return DriftVerdict(
        state, len(current), len(reference), p_values, shifts, has_input_change, has_answer_change, cause
    )


def _ks(current: pd.Series[float], reference: pd.Series[float]) -> float:
    return float(ks_2samp(current.to_numpy(), reference.to_numpy(), method="asymp").pvalue)


def _chi_squared(current: pd.Series[str], reference: pd.Series[str]) -> float:
    counts = np.array([[(values == emotion).sum() for emotion in EMOTIONS] for values in (current, reference)])
    counts = counts[:, counts.sum(axis=0) > 0]
    if counts.shape[1] < 2:
        return 1.0
    return float(chi2_contingency(counts).pvalue)


def _shift(current: pd.Series[float], reference: pd.Series[float]) -> float:
    deviation = float(reference.std())
    return float(current.mean() - reference.mean()) / deviation if deviation > 0 else 0.0


def _cause(
    current: pd.DataFrame,
    reference: pd.DataFrame,
    p_values: dict[str, float],
    shifts: dict[str, float],
    has_input_change: bool,
    has_answer_change: bool,
    false_alarm_rate: float,
) -> str:
    parts = []
    if has_input_change:
        changed = [name for name in INPUT_COLUMNS if p_values[name] < false_alarm_rate / len(INPUT_COLUMNS)]
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
    return ("; ".join(parts) or "no change beyond chance") + "."
