"""Have the pictures changed, and have the answers? Questions with a set false-alarm rate each.

Every logged number is compared with the reference by a Kolmogorov-Smirnov test, the predicted emotion by a
chi-squared test; the smallest p-value of a tier counts, corrected for the number of columns (Bonferroni).
Changed inputs alone often do no harm, so they warn; changed answers follow the loss of accuracy, so they act,
unless the mix of emotions explains them (`shares`). Where the model rehearsed known changes, the one that the
window looks like (`likeness`) names the cause and corrects both: a cheap one does not act, a dear one does.
Distributions hide a few strange pictures among many, so pictures that are odd by their Mahalanobis distance are
counted beside both tiers (Fisher's exact test), and so are those that look like a change which costs much
(`parts`): a part that is large enough to do harm acts, too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import ks_2samp

from emotion_assets.core.emotions import EMOTIONS
from emotion_assets.core.logged_values import EMOTION_COLUMN, PROBABILITY_COLUMNS
from emotion_assets.steps.drift.likeness import HARMFUL_LOSS, Likeness, Rehearsal
from emotion_assets.steps.drift.oddness import ODD_PERCENTILE, Oddness
from emotion_assets.steps.drift.parts import Part
from emotion_assets.steps.drift.shares import estimated_shares, weights_of
from emotion_assets.steps.drift.significance import p_of_emotions, p_of_more, p_of_numbers
from emotion_assets.steps.drift.tiers import (
    ANSWER_COLUMNS,
    ANSWER_LIMIT,
    FALSE_ALARM_RATE,
    INPUT_COLUMNS,
    INPUT_LIMIT,
    NUMERIC_COLUMNS,
)
from emotion_assets.steps.drift.words import changes_in_words, likeness_in_words, part_in_words
from emotion_assets.steps.training.reference import TRUTH_COLUMN

MIN_PICTURES: Final = 50
"""Below this a window says nothing: neither drift nor its absence."""
SURE_P_VALUE: Final = 1e-6
"""Below this one window is enough to act on; otherwise it takes two in a row."""

_SEVERITIES: Final = ((0.4, "strong"), (0.2, "clear"), (0.0, "slight"))


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
    unexplained_p_value: float | None = None
    """Of the answers against those of the cheap rehearsed change that the pictures look like; None if they do not."""
    part: Part | None = None
    """Some pictures that look like a change which costs much, where most do not and chance does not explain them."""

    @property
    def is_sure(self) -> bool:
        """Whether this window alone is beyond doubt."""
        # Only what acts may be sure: not answers that a mix of emotions or a cheap change explains, nor a part that
        # costs little.
        if self.is_explained_by_shares:
            evidence = []
        elif self.unexplained_p_value is not None:
            evidence = [self.unexplained_p_value]
        else:
            evidence = [self.p_values.get(name, 1.0) for name in ANSWER_COLUMNS]
        if self.part and self.part.loss >= HARMFUL_LOSS:
            evidence.append(self.part.p_value)
        return self.state == "answers_changed" and min(evidence, default=1.0) < SURE_P_VALUE

    def as_record(self) -> dict[str, Any]:
        """Return the verdict for JSON."""
        return asdict(self)


def judge(
    current: pd.DataFrame,
    reference: pd.DataFrame,
    rehearsal: Rehearsal | None = None,
) -> DriftVerdict:
    """Compare the logged values of recent pictures with those of the reference.

    Args:
        current: one row a picture, with the columns of LOGGED_COLUMNS.
        reference: the same, of validation faces.
        rehearsal: the changes that this model rehearsed, if it did.
    """
    if len(current) < MIN_PICTURES or len(reference) < MIN_PICTURES:
        cause = (
            f"Too few pictures to tell: {len(current)} current and {len(reference)} reference ones, "
            f"{MIN_PICTURES} of each are needed."
        )
        return DriftVerdict("too_few", len(current), len(reference), {}, {}, False, False, cause)
    p_values = {name: p_of_numbers(current[name], reference[name]) for name in NUMERIC_COLUMNS}
    p_values[EMOTION_COLUMN] = p_of_emotions(current[EMOTION_COLUMN], reference[EMOTION_COLUMN])
    shifts = {name: _shift(current[name], reference[name]) for name in NUMERIC_COLUMNS}
    has_input_change = min(p_values[name] for name in INPUT_COLUMNS) < INPUT_LIMIT
    has_answer_change = min(p_values[name] for name in ANSWER_COLUMNS) < ANSWER_LIMIT
    oddness = Oddness(reference)
    num_odd = int(oddness.is_odd(current).sum())
    odd_p_value = p_of_more(num_odd, len(current), oddness.num_odd_in_reference, len(reference))
    has_odd_pictures = odd_p_value < FALSE_ALARM_RATE
    why = _explanation(current, reference, rehearsal, has_input_change, has_answer_change)
    state = _state(why, has_input_change, has_answer_change, has_odd_pictures)
    changes = changes_in_words(current, reference, p_values, shifts, has_input_change, has_answer_change)
    if why.is_explained_by_shares:
        changes[-1] += ", as another mix of emotions would do"  # that is asked only where answers changed
    seen = [*part_in_words(why.part), *likeness_in_words(why.looks, why.leaves_answers), *changes]
    if has_odd_pictures:
        seen.append(
            f"{num_odd} of {len(current)} pictures are odd, as {100 - ODD_PERCENTILE} % of validation faces are"
        )
    cause = ("; ".join(seen) or "no change beyond chance") + "."
    return DriftVerdict(
        state=state,
        num_current=len(current),
        num_reference=len(reference),
        p_values=p_values,
        shifts=shifts,
        has_input_change=has_input_change,
        has_answer_change=has_answer_change,
        cause=cause,
        severity=_severity(current, reference) if state != "ok" else "none",
        num_odd=num_odd,
        has_odd_pictures=has_odd_pictures,
        odd_p_value=odd_p_value,
        is_explained_by_shares=why.is_explained_by_shares,
        looks_like=why.looks.changes if why.looks else (),
        expected_loss=why.looks.loss if why.looks and why.looks.changes else None,
        unexplained_p_value=why.unexplained_p,
        part=why.part,
        shares=None if why.shares is None else dict(zip(EMOTIONS, why.shares.tolist(), strict=True)),
    )


@dataclass(frozen=True, slots=True)
class _Explanation:
    """What may be behind a change."""

    shares: npt.NDArray[np.float64] | None = None
    is_explained_by_shares: bool = False
    looks: Likeness | None = None
    leaves_answers: bool = False
    """Whether answers changed more than the likeliest rehearsed change explains."""
    unexplained_p: float | None = None
    """The smallest p-value of the answers against those of that change, if it is one that costs little."""
    part: Part | None = None


def _explanation(
    current: pd.DataFrame,
    reference: pd.DataFrame,
    rehearsal: Rehearsal | None,
    has_input_change: bool,
    has_answer_change: bool,
) -> _Explanation:
    shares, weights, is_explained = None, None, False
    if has_answer_change and TRUTH_COLUMN in reference:
        shares = estimated_shares(current, reference)
        weights = weights_of(reference, shares)
        is_explained = _explains(current, reference, weights)
    if rehearsal is None:
        return _Explanation(shares, is_explained, leaves_answers=has_answer_change)
    looks, leaves_answers, unexplained_p, part = None, False, None, None
    if (has_input_change or has_answer_change) and not is_explained:
        looks = rehearsal.likeness(current)
        smallest_p = min(_p_of_answers(current, looks.rehearsed))
        leaves_answers = has_answer_change and smallest_p < ANSWER_LIMIT
        unexplained_p = smallest_p if looks.is_a_change and not looks.is_dear else None
    if not (looks and looks.is_a_change):
        part = rehearsal.part(current, weights if is_explained else None)
    is_sure = part is not None and part.p_value < FALSE_ALARM_RATE
    return _Explanation(shares, is_explained, looks, leaves_answers, unexplained_p, part if is_sure else None)


def _state(why: _Explanation, has_input_change: bool, has_answer_change: bool, has_odd_pictures: bool) -> str:
    if why.part and why.part.loss >= HARMFUL_LOSS:
        return "answers_changed"
    if why.is_explained_by_shares:
        return "shares_changed"
    if why.looks is None or not why.looks.is_a_change:
        # Nothing rehearsed explains what the tests see, such as a part of strange pictures among many.
        acts = has_answer_change
    else:
        # Several changes at once look like the plainest of them, but answers tell that there is more.
        acts = why.looks.is_dear or why.leaves_answers
    if acts:
        return "answers_changed"
    if has_input_change or has_answer_change:
        return "inputs_changed"
    return "odd_pictures" if has_odd_pictures or why.part else "ok"


def _explains(current: pd.DataFrame, reference: pd.DataFrame, weights: npt.NDArray[np.float64]) -> bool:
    """Tell whether nothing is left to see against a reference of the same mix: happy faces look different, too."""
    inputs = [p_of_numbers(current[name], reference[name], weights) for name in INPUT_COLUMNS]
    if min(inputs) < INPUT_LIMIT:
        return False
    return min(_p_of_answers(current, reference, weights)) >= ANSWER_LIMIT


def _p_of_answers(
    current: pd.DataFrame, expected: pd.DataFrame, weights: npt.NDArray[np.float64] | None = None
) -> list[float]:
    """Return the p-values of the answers against those that were expected, one for each of ANSWER_COLUMNS."""
    answers = [p_of_numbers(current[name], expected[name], weights) for name in PROBABILITY_COLUMNS]
    return [*answers, p_of_emotions(current[EMOTION_COLUMN], expected[EMOTION_COLUMN], weights)]


def _severity(current: pd.DataFrame, reference: pd.DataFrame) -> str:
    largest = max(float(ks_2samp(current[name], reference[name]).statistic) for name in PROBABILITY_COLUMNS)
    return next(word for least, word in _SEVERITIES if largest >= least)


def _shift(current: pd.Series[float], reference: pd.Series[float]) -> float:
    deviation = float(reference.std())
    return float(current.mean() - reference.mean()) / deviation if deviation > 0 else 0.0
