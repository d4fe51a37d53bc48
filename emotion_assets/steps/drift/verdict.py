"""Have the images changed, and have the answers? Questions with a set false-alarm rate each.

Every logged number is compared with the reference by a Kolmogorov-Smirnov test, the predicted emotion by a
chi-squared test; the smallest p-value of a tier counts, corrected for the number of columns (Bonferroni).
Changed inputs alone often do no harm, so they warn; changed answers follow the loss of accuracy, so they act,
unless the mix of emotions explains them (`shares`). Where the model corrupted known changes, the one that the
window looks like (`likeness`) names the cause and corrects both: a cheap one does not act, a dear one does.
Distributions hide a few strange images among many, so images that are odd by their Mahalanobis distance are
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

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.features import EMOTION_COLUMN, PROBABILITY_COLUMNS
from emotion_assets.steps.drift.attribution import HARMFUL_LOSS, Attribution, CorruptionProfile
from emotion_assets.steps.drift.label_shift import class_prior_weights, estimate_class_priors
from emotion_assets.steps.drift.messages import describe_attribution, describe_changes, describe_subpopulation
from emotion_assets.steps.drift.outliers import OUTLIER_PERCENTILE, OutlierDetector
from emotion_assets.steps.drift.pvalues import chi2_pvalue, fisher_pvalue, ks_pvalue
from emotion_assets.steps.drift.subpopulations import Subpopulation
from emotion_assets.steps.drift.tiers import (
    FALSE_ALARM_RATE,
    INPUT_COLUMNS,
    INPUT_LIMIT,
    NUMERIC_COLUMNS,
    PREDICTION_COLUMNS,
    PREDICTION_LIMIT,
)
from emotion_assets.steps.reference.reference import TRUE_EMOTION_COLUMN

MIN_IMAGES: Final = 50
"""Below this a window says nothing: neither drift nor its absence."""
SIGNIFICANT_P_VALUE: Final = 1e-6
"""Below this one window is enough to act on; otherwise it takes two in a row."""

_SEVERITIES: Final = ((0.4, "strong"), (0.2, "clear"), (0.0, "slight"))


@dataclass(frozen=True, slots=True)
class DriftVerdict:
    """The answer to both questions, with every number behind it."""

    state: str
    """`too_few` or `ok`, which say nothing; `outliers`, `input_drift` or `label_shift`, which warn;
    `prediction_drift`, which acts: answers that nothing harmless explains, or images that look like a change which
    spoiled the answers when it was corrupted."""
    num_current: int
    num_reference: int
    p_values: dict[str, float]
    """By column, uncorrected."""
    shifts: dict[str, float]
    """By numeric column: difference of the means in reference standard deviations."""
    has_input_drift: bool
    has_prediction_drift: bool
    cause: str
    """What changed, in words."""
    severity: str = "none"
    """`none`, `slight`, `clear` or `strong`, by the largest difference of a distribution of answers."""
    num_outliers: int = 0
    has_outliers: bool = False
    outlier_p_value: float = 1.0
    is_label_shift: bool = False
    """Whether another mix of emotions alone would change the answers like this."""
    fractions: dict[str, float] | None = None
    """The estimated mix of emotions, where the answers changed and the reference tells the truth."""
    nearest_corruptions: tuple[str, ...] = ()
    """Rehearsed changes that the images look like, the likeliest first."""
    expected_loss: float | None = None
    """Accuracy that such images cost, as a fraction, where something changed and changes were corrupted."""
    unexplained_p_value: float | None = None
    """Of the answers against those of the cheap known corruption that the images look like; None if they do not."""
    part: Subpopulation | None = None
    """Some images that look like a change which costs much, where most do not and chance does not explain them."""

    @property
    def is_significant(self) -> bool:
        """Whether this window alone is beyond doubt."""
        # Only what acts may be sure: not answers that a mix of emotions or a cheap change explains, nor a part that
        # costs little.
        if self.is_label_shift:
            evidence = []
        elif self.unexplained_p_value is not None:
            evidence = [self.unexplained_p_value]
        else:
            evidence = [self.p_values.get(name, 1.0) for name in PREDICTION_COLUMNS]
        if self.part and self.part.loss >= HARMFUL_LOSS:
            evidence.append(self.part.p_value)
        return self.state == "prediction_drift" and min(evidence, default=1.0) < SIGNIFICANT_P_VALUE

    def as_record(self) -> dict[str, Any]:
        """Return the verdict for JSON."""
        return asdict(self)


def judge(
    current: pd.DataFrame,
    reference: pd.DataFrame,
    corruptions: CorruptionProfile | None = None,
) -> DriftVerdict:
    """Compare the logged values of recent images with those of the reference.

    Args:
        current: one row an image, with the columns of FEATURE_COLUMNS.
        reference: the same, of validation faces.
        corruption profile: the changes that this model corrupted, if it did.
    """
    if len(current) < MIN_IMAGES or len(reference) < MIN_IMAGES:
        cause = (
            f"Too few images to tell: {len(current)} current and {len(reference)} reference ones, "
            f"{MIN_IMAGES} of each are needed."
        )
        return DriftVerdict("too_few", len(current), len(reference), {}, {}, False, False, cause)
    p_values = {name: ks_pvalue(current[name], reference[name]) for name in NUMERIC_COLUMNS}
    p_values[EMOTION_COLUMN] = chi2_pvalue(current[EMOTION_COLUMN], reference[EMOTION_COLUMN])
    shifts = {name: _shift(current[name], reference[name]) for name in NUMERIC_COLUMNS}
    has_input_drift = min(p_values[name] for name in INPUT_COLUMNS) < INPUT_LIMIT
    has_prediction_drift = min(p_values[name] for name in PREDICTION_COLUMNS) < PREDICTION_LIMIT
    outliers = OutlierDetector(reference)
    num_outliers = int(outliers.is_outlier(current).sum())
    outlier_p_value = fisher_pvalue(num_outliers, len(current), outliers.num_outliers_in_reference, len(reference))
    has_outliers = outlier_p_value < FALSE_ALARM_RATE
    why = _explanation(current, reference, corruptions, has_input_drift, has_prediction_drift)
    state = _state(why, has_input_drift, has_prediction_drift, has_outliers)
    changes = describe_changes(current, reference, p_values, shifts, has_input_drift, has_prediction_drift)
    if why.is_label_shift:
        changes[-1] += ", as another mix of emotions would do"  # that is asked only where answers changed
    seen = [*describe_subpopulation(why.part), *describe_attribution(why.attribution, why.is_unexplained), *changes]
    if has_outliers:
        seen.append(
            f"{num_outliers} of {len(current)} images are odd, as {100 - OUTLIER_PERCENTILE} % of validation faces are"
        )
    cause = ("; ".join(seen) or "no change beyond chance") + "."
    return DriftVerdict(
        state=state,
        num_current=len(current),
        num_reference=len(reference),
        p_values=p_values,
        shifts=shifts,
        has_input_drift=has_input_drift,
        has_prediction_drift=has_prediction_drift,
        cause=cause,
        severity=_severity(current, reference) if state != "ok" else "none",
        num_outliers=num_outliers,
        has_outliers=has_outliers,
        outlier_p_value=outlier_p_value,
        is_label_shift=why.is_label_shift,
        nearest_corruptions=why.attribution.changes if why.attribution else (),
        expected_loss=why.attribution.loss if why.attribution and why.attribution.changes else None,
        unexplained_p_value=why.unexplained_p,
        part=why.part,
        fractions=None if why.fractions is None else dict(zip(EMOTIONS, why.fractions.tolist(), strict=True)),
    )


@dataclass(frozen=True, slots=True)
class _Explanation:
    """What may be behind a change."""

    fractions: npt.NDArray[np.float64] | None = None
    is_label_shift: bool = False
    attribution: Attribution | None = None
    is_unexplained: bool = False
    """Whether answers changed more than the likeliest known corruption explains."""
    unexplained_p: float | None = None
    """The smallest p-value of the answers against those of that change, if it is one that costs little."""
    part: Subpopulation | None = None


def _explanation(
    current: pd.DataFrame,
    reference: pd.DataFrame,
    corruptions: CorruptionProfile | None,
    has_input_drift: bool,
    has_prediction_drift: bool,
) -> _Explanation:
    fractions, weights, is_explained = None, None, False
    if has_prediction_drift and TRUE_EMOTION_COLUMN in reference:
        fractions = estimate_class_priors(current, reference)
        weights = class_prior_weights(reference, fractions)
        is_explained = _explains(current, reference, weights)
    if corruptions is None:
        return _Explanation(fractions, is_explained, is_unexplained=has_prediction_drift)
    attribution, is_unexplained, unexplained_p, part = None, False, None, None
    if (has_input_drift or has_prediction_drift) and not is_explained:
        attribution = corruptions.attribution(current)
        smallest_p = min(_prediction_pvalues(current, attribution.corruption_profile))
        is_unexplained = has_prediction_drift and smallest_p < PREDICTION_LIMIT
        unexplained_p = smallest_p if attribution.is_corruption and not attribution.is_harmful else None
    if not (attribution and attribution.is_corruption):
        part = corruptions.part(current, weights if is_explained else None)
    is_significant = part is not None and part.p_value < FALSE_ALARM_RATE
    return _Explanation(
        fractions, is_explained, attribution, is_unexplained, unexplained_p, part if is_significant else None
    )


def _state(why: _Explanation, has_input_drift: bool, has_prediction_drift: bool, has_outliers: bool) -> str:
    if why.part and why.part.loss >= HARMFUL_LOSS:
        return "prediction_drift"
    if why.is_label_shift:
        return "label_shift"
    if why.attribution is None or not why.attribution.is_corruption:
        # Nothing corrupted explains what the tests see, such as a part of strange images among many.
        acts = has_prediction_drift
    else:
        # Several changes at once look like the plainest of them, but answers tell that there is more.
        acts = why.attribution.is_harmful or why.is_unexplained
    if acts:
        return "prediction_drift"
    if has_input_drift or has_prediction_drift:
        return "input_drift"
    return "outliers" if has_outliers or why.part else "ok"


def _explains(current: pd.DataFrame, reference: pd.DataFrame, weights: npt.NDArray[np.float64]) -> bool:
    """Tell whether nothing is left to see against a reference of the same mix: happy faces look different, too."""
    inputs = [ks_pvalue(current[name], reference[name], weights) for name in INPUT_COLUMNS]
    if min(inputs) < INPUT_LIMIT:
        return False
    return min(_prediction_pvalues(current, reference, weights)) >= PREDICTION_LIMIT


def _prediction_pvalues(
    current: pd.DataFrame, expected: pd.DataFrame, weights: npt.NDArray[np.float64] | None = None
) -> list[float]:
    """Return the p-values of the answers against those that were expected, one for each of PREDICTION_COLUMNS."""
    answers = [ks_pvalue(current[name], expected[name], weights) for name in PROBABILITY_COLUMNS]
    return [*answers, chi2_pvalue(current[EMOTION_COLUMN], expected[EMOTION_COLUMN], weights)]


def _severity(current: pd.DataFrame, reference: pd.DataFrame) -> str:
    largest = max(float(ks_2samp(current[name], reference[name]).statistic) for name in PROBABILITY_COLUMNS)
    return next(word for least, word in _SEVERITIES if largest >= least)


def _shift(current: pd.Series[float], reference: pd.Series[float]) -> float:
    deviation = float(reference.std())
    return float(current.mean() - reference.mean()) / deviation if deviation > 0 else 0.0
