"""Have the pictures changed, and have the answers? Questions with a set false-alarm rate each.

Every logged number is compared with the reference by a Kolmogorov-Smirnov test, the predicted emotion by a
chi-squared test; the smallest p-value of a tier counts, corrected for the number of columns (Bonferroni).
Changed inputs alone often do no harm, so they warn; changed answers follow the loss of accuracy, so they act,
unless the mix of emotions explains them (`shares`). Where the model rehearsed known changes, the one that the
window looks like (`likeness`) names the cause and corrects both: a cheap one does not act, a dear one does.
Distributions hide a few strange pictures among many, so pictures that are odd by their Mahalanobis distance are
counted beside both tiers (Fisher's exact test).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import chi2_contingency, fisher_exact, ks_2samp

from emotion_assets.core.emotions import EMOTIONS
from emotion_assets.core.image_stats import STATISTICS
from emotion_assets.core.logged_values import EMOTION_COLUMN, PROBABILITY_COLUMNS
from emotion_assets.steps.drift.likeness import Likeness, Rehearsal
from emotion_assets.steps.drift.shares import estimated_shares, with_shares
from emotion_assets.steps.training.reference import TRUTH_COLUMN
from emotion_assets.steps.training.rehearsal import UNCHANGED

MIN_PICTURES: Final = 50
"""Below this a window says nothing: neither drift nor its absence."""
FALSE_ALARM_RATE: Final = 0.01
"""For each tier and window."""

ODD_PERCENTILE: Final = 98
"""A picture is odd when its distance exceeds that of so many percent of the reference."""
SURE_P_VALUE: Final = 1e-6
"""Below this one window is enough to act on; otherwise it takes two in a row."""

HARMFUL_LOSS: Final = 0.06
"""A rehearsed change acts when it costs at least so much accuracy: 5 points, and one for the error of the estimate."""

_SEVERITIES: Final = ((0.4, "strong"), (0.2, "clear"), (0.0, "slight"))

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
    """`too_few` or `ok`, which say nothing; `odd_pictures`, `inputs_changed` or `shares_changed`, which warn;
    `answers_changed`, which acts: answers that nothing harmless explains, or pictures that look like a change which
    spoiled the answers when it was rehearsed."""
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
    severity: str = "none"
    """`none`, `slight`, `clear` or `strong`, by the largest difference of a distribution of answers."""
    num_odd: int = 0
    has_odd_pictures: bool = False
    odd_p_value: float = 1.0
    is_explained_by_shares: bool = False
    """Whether another mix of emotions alone would change the answers like this."""
    shares: dict[str, float] | None = None
    """The estimated mix of emotions, where the answers changed and the reference tells the truth."""
    looks_like: tuple[str, ...] = ()
    """Rehearsed changes that the pictures look like, the likeliest first."""
    expected_loss: float | None = None
    """Accuracy that such pictures cost, as a fraction, where something changed and changes were rehearsed."""

    @property
    def is_sure(self) -> bool:
        """Whether this window alone is beyond doubt."""
        answers = [self.p_values[name] for name in ANSWER_COLUMNS if name in self.p_values]
        return self.state == "answers_changed" and min(answers, default=1.0) < SURE_P_VALUE

    def as_record(self) -> dict[str, Any]:
        """Return the verdict for JSON."""
        return asdict(self)


def judge(
    current: pd.DataFrame,
    reference: pd.DataFrame,
    rehearsal: Rehearsal | None = None,
    false_alarm_rate: float = FALSE_ALARM_RATE,
) -> DriftVerdict:
    """Compare the logged values of recent pictures with those of the reference.

    Args:
        current: one row a picture, with the columns of LOGGED_COLUMNS.
        reference: the same, of validation faces.
        rehearsal: the changes that this model rehearsed, if it did.
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
    num_odd = int(is_odd(current, reference).sum())
    odd_p_value = _too_many(num_odd, len(current), int(is_odd(reference, reference).sum()), len(reference))
    has_odd_pictures = odd_p_value < false_alarm_rate
    shares, is_explained = None, False
    if has_answer_change and TRUTH_COLUMN in reference:
        shares = estimated_shares(current, reference)
        is_explained = _explains(current, with_shares(reference, shares), false_alarm_rate)
    looks, leaves_answers = None, has_answer_change
    if rehearsal is not None and (has_input_change or has_answer_change):
        looks = rehearsal.likeness(current)
        leaves_answers = has_answer_change and not _explains_answers(current, looks.rehearsed, false_alarm_rate)
    if is_explained:
        state = "shares_changed"
    elif _acts(looks, has_answer_change=has_answer_change, leaves_answers=leaves_answers):
        state = "answers_changed"
    elif has_input_change or has_answer_change:
        state = "inputs_changed"
    else:
        state = "odd_pictures" if has_odd_pictures else "ok"
    seen = _cause(current, reference, p_values, shifts, has_input_change, has_answer_change, false_alarm_rate)
    cause = _likeness_in_words(looks, leaves_answers=leaves_answers) + seen
    if has_odd_pictures:
        cause = f"{cause.removesuffix('.')}; {num_odd} of {len(current)} pictures are unlike any validation face."
    if state == "shares_changed":
        cause = f"{cause.removesuffix('.')}, as another mix of emotions would do."
    return DriftVerdict(
        state=state,
        num_current=len(current),
        num_reference=len(reference),
        p_values=p_values,
        shifts=shifts,
        has_input_change=has_input_change,
        has_answer_change=has_answer_change,
        cause=cause,
        severity=_severity(current, reference) if state not in ("ok", "too_few") else "none",
        num_odd=num_odd,
        has_odd_pictures=has_odd_pictures,
        odd_p_value=odd_p_value,
        is_explained_by_shares=is_explained,
        looks_like=looks.changes if looks else (),
        expected_loss=looks.loss if looks else None,
        shares=None if shares is None else dict(zip(EMOTIONS, shares.tolist(), strict=True)),
    )


def _acts(looks: Likeness | None, *, has_answer_change: bool, leaves_answers: bool) -> bool:
    """Tell whether somebody should act, given the likeliest change and whether it leaves answers unexplained."""
    if looks is None or not looks.is_a_change:
        # Nothing rehearsed explains what the tests see, such as a part of strange pictures among many.
        return has_answer_change
    # Several changes at once look like the plainest of them, but answers tell that there is more.
    return looks.loss >= HARMFUL_LOSS or leaves_answers


def _likeness_in_words(looks: Likeness | None, *, leaves_answers: bool) -> str:
    if looks is None or not looks.is_a_change:
        return ""
    words = f"pictures look {' or '.join(change for change in looks.changes if change != UNCHANGED)}"
    if leaves_answers:
        return f"{words}, but answers changed more than that explains; "
    cost = f"about {100 * looks.loss:.0f} points of accuracy" if looks.loss >= 0.01 else "hardly any accuracy"
    return f"{words}, which cost {cost} on validation faces; "


def is_odd(current: pd.DataFrame, reference: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return which pictures are unlike the reference, bool (picture,): far away in units of its own spread."""
    columns = list(INPUT_COLUMNS)
    values = reference[columns].to_numpy(dtype=np.float64)
    centre = values.mean(axis=0)
    # Statistics that hardly vary, or follow each other closely, must not blow a distance up.
    spread = np.cov(values, rowvar=False) + 1e-9 * np.eye(len(columns))
    inverse = np.linalg.pinv(spread, hermitian=True)

    def distance(table: pd.DataFrame) -> npt.NDArray[np.float64]:
        away = table[columns].to_numpy(dtype=np.float64) - centre
        return np.asarray(np.einsum("ij,jk,ik->i", away, inverse, away))

    limit = np.percentile(distance(reference), ODD_PERCENTILE)
    return np.asarray(distance(current) > limit)


def _too_many(num_odd: int, num: int, num_odd_reference: int, num_reference: int) -> float:
    counts = [[num_odd, num - num_odd], [num_odd_reference, num_reference - num_odd_reference]]
    return float(fisher_exact(counts, alternative="greater").pvalue)


def _explains(current: pd.DataFrame, redrawn: pd.DataFrame, false_alarm_rate: float) -> bool:
    """Tell whether nothing is left to see against a reference of the same mix: happy faces look different, too."""
    inputs = [_ks(current[name], redrawn[name]) for name in INPUT_COLUMNS]
    return min(inputs) >= false_alarm_rate / len(inputs) and _explains_answers(current, redrawn, false_alarm_rate)


def _explains_answers(current: pd.DataFrame, expected: pd.DataFrame, false_alarm_rate: float) -> bool:
    """Tell whether the answers are those that were expected, by the test of their tier."""
    answers = [_ks(current[name], expected[name]) for name in PROBABILITY_COLUMNS]
    answers.append(_chi_squared(current[EMOTION_COLUMN], expected[EMOTION_COLUMN]))
    return min(answers) >= false_alarm_rate / len(answers)


def _severity(current: pd.DataFrame, reference: pd.DataFrame) -> str:
    largest = max(float(ks_2samp(current[name], reference[name]).statistic) for name in PROBABILITY_COLUMNS)
    return next(word for least, word in _SEVERITIES if largest >= least)


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
