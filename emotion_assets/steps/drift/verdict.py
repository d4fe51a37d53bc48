"""Assess a window: have the inputs drifted, and have the predictions? Each question has a fixed false-alarm rate.

Every logged feature is compared with the reference by a Kolmogorov-Smirnov test and the predicted class by a
chi-squared test; the smallest p-value of a tier counts, corrected for the number of columns (Bonferroni). Input drift
alone often costs no accuracy, so it warns; prediction drift follows the loss of accuracy, so it is acted on, unless a
label shift explains it (`label_shift`). The known corruptions that explain the window best (`attribution`) name the
cause and correct both: what costs little accuracy is not acted on, what costs much is. If nothing known explains the
window, the model's confidence tells what it may cost. Distributions hide a few strange images among many, so outliers
are counted (Fisher's exact test) and corrupted subpopulations are detected (`subpopulations`); a subpopulation that
costs enough is acted on, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

import pandas as pd

from emotion_assets.core.bundle import CORRUPTIONS_NAME, REFERENCE_NAME
from emotion_assets.core.features import EMOTION_COLUMN, feature_columns, probability_columns
from emotion_assets.core.image_stats import STATISTICS
from emotion_assets.steps.drift.attribution import Attribution, CorruptionProfile
from emotion_assets.steps.drift.hypotheses import HARMFUL_LOSS
from emotion_assets.steps.drift.label_shift import class_prior_weights, estimate_class_priors
from emotion_assets.steps.drift.messages import (
    describe_attribution,
    describe_inputs,
    describe_predictions,
    describe_subpopulation,
    describe_unexplained,
)
from emotion_assets.steps.drift.outliers import OUTLIER_PERCENTILE, OutlierDetector
from emotion_assets.steps.drift.pvalues import Weights, chi2_pvalue, distance, fisher_pvalue, ks_pvalue
from emotion_assets.steps.drift.subpopulations import Subpopulation
from emotion_assets.steps.reference.reference import emotions_of, round_features

FALSE_ALARM_RATE: Final = 0.01
"""For each tier and window."""
MIN_DISTANCE: Final = 0.12
"""Distributions that differ less, at their most different point, are equivalent. Windows of 500 would tell faces of one
source, collected at another time, from validation faces; what costs accuracy moves them farther."""
MIN_IMAGES: Final = 50
"""With fewer images, a window shows neither drift nor its absence."""
SIGNIFICANT_P_VALUE: Final = 1e-6
"""Below this, one window is enough to act on; otherwise it takes two in a row."""
_UNEXPLAINED_P_VALUE: Final = 1e-4
"""Predictions less probable than this are not explained; simulated and real corruptions differ a little."""
_MIN_UNEXPLAINED_LOSS: Final = 0.01
"""A model as confident as usual gives no reason to act, whatever the error of its confidence."""


class DriftState(StrEnum):
    """The verdict on a window: the first two need no attention, the next three warn, the last is acted on."""

    TOO_FEW = "too_few"
    OK = "ok"
    OUTLIERS = "outliers"
    INPUT_DRIFT = "input_drift"
    LABEL_SHIFT = "label_shift"
    PREDICTION_DRIFT = "prediction_drift"
    """Predictions that nothing harmless explains, or images that look like a harmful corruption."""


class Severity(StrEnum):
    """How far the predictions moved: by the largest Kolmogorov-Smirnov distance of a class probability."""

    NONE = "none"
    SLIGHT = "slight"
    CLEAR = "clear"
    STRONG = "strong"


_SEVERITIES: Final = ((0.4, Severity.STRONG), (0.2, Severity.CLEAR), (0.0, Severity.SLIGHT))


@dataclass(frozen=True, slots=True)
class DriftReference:
    """What a model's windows are compared with, prepared once."""

    table: pd.DataFrame
    """Features, predictions and true classes of the validation images, one row each."""
    outliers: OutlierDetector
    corruptions: CorruptionProfile | None
    """None where there were too few validation images to simulate corruptions."""

    @classmethod
    def from_tables(cls, table: pd.DataFrame, profile: pd.DataFrame | None = None) -> Self:
        """Prepare the reference and the corruption profile of a model."""
        return cls(table, OutlierDetector(table), None if profile is None else CorruptionProfile(table, profile))

    @classmethod
    def load(cls, bundle_dir: Path) -> Self:
        """Read both from a bundle."""
        path = bundle_dir / CORRUPTIONS_NAME
        table = round_features(pd.read_parquet(bundle_dir / REFERENCE_NAME))
        return cls.from_tables(table, pd.read_parquet(path) if path.exists() else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftVerdict:
    """The verdict on a window with every number behind it."""

    state: DriftState = DriftState.OK
    cause: str = ""
    """One or more sentences."""
    num_current: int
    num_reference: int
    severity: Severity = Severity.NONE
    p_values: dict[str, float] = field(default_factory=dict)
    """By column, uncorrected."""
    distances: dict[str, float] = field(default_factory=dict)
    """By column: Kolmogorov-Smirnov distance, or total variation of the predicted class, 0..1."""
    shifts: dict[str, float] = field(default_factory=dict)
    """By numeric column: difference of the means in reference standard deviations."""
    has_input_drift: bool = False
    has_prediction_drift: bool = False
    num_outliers: int = 0
    has_outliers: bool = False
    outlier_p_value: float = 1.0
    is_label_shift: bool = False
    """Whether other class priors alone would change the predictions like this."""
    class_priors: dict[str, float] | None = None
    """Estimated where the predictions changed."""
    nearest_corruptions: tuple[str, ...] = ()
    """Known corruptions that the images resemble, the most probable first."""
    expected_accuracy_loss: float | None = None
    """Accuracy that such images cost, as a fraction; None without drift, or if only the class priors changed."""
    is_lower_bound: bool = False
    """Whether `expected_accuracy_loss` is that of the strongest known corruption of its kind, and may be larger."""
    loss_error: float | None = None
    """Standard error of `expected_accuracy_loss`, 0..1, if nothing known explains the window; else None. The loss is
    then the nearest corruption's if that is harmful, else the larger of it and the one by the model's confidence."""
    unexplained_p_value: float | None = None
    """p-value of the predictions under the best explanation, if that does not explain the window."""
    subpopulation: Subpopulation | None = None
    """A significant one: corrupted images among others that are not, or not in this way."""

    @property
    def is_significant(self) -> bool:
        """Whether this window alone is enough to act on."""
        if self.is_label_shift:
            evidence = []
        elif self.unexplained_p_value is not None:
            evidence = [self.unexplained_p_value]
        else:
            evidence = [value for name, value in self.p_values.items() if name not in STATISTICS]
        if self.subpopulation and self.subpopulation.loss >= HARMFUL_LOSS:
            evidence.append(self.subpopulation.p_value)
        return self.state == DriftState.PREDICTION_DRIFT and min(evidence, default=1.0) < SIGNIFICANT_P_VALUE

    @property
    def may_be_harmful(self) -> bool:
        """Whether nothing known explains the window, and its cost may be enough to act on within its error."""
        loss, error = self.expected_accuracy_loss or 0.0, self.loss_error
        return error is not None and loss >= _MIN_UNEXPLAINED_LOSS and loss + error >= HARMFUL_LOSS


def assess(current: pd.DataFrame, reference: DriftReference) -> DriftVerdict:
    """Compare a window, one row per image with the columns of `feature_columns`, with the reference of its model."""
    table = reference.table
    if min(len(current), len(table)) < MIN_IMAGES:
        cause = f"{len(current)} current and {len(table)} validation images; {MIN_IMAGES} of each are needed"
        cause += ", which takes 500 labelled images." if len(table) < MIN_IMAGES else "."
        return DriftVerdict(state=DriftState.TOO_FEW, cause=cause, num_current=len(current), num_reference=len(table))
    *names, _ = feature_columns(emotions_of(table))
    p_values = {name: ks_pvalue(current[name], table[name]) for name in names}
    p_values[EMOTION_COLUMN] = chi2_pvalue(current[EMOTION_COLUMN], table[EMOTION_COLUMN])
    shifts = {name: _shift(current[name], table[name]) for name in names}
    distances = {name: distance(current[name], table[name]) for name in p_values}
    levels = {name: significance_level(name, table) for name in p_values}
    drifted = {name for name in p_values if p_values[name] < levels[name] and distances[name] >= MIN_DISTANCE}
    num_outliers = int(reference.outliers.is_outlier(current).sum())
    outlier_p_value = fisher_pvalue(
        num_outliers, len(current), reference.outliers.num_outliers_in_reference, len(table)
    )
    changes = DriftVerdict(
        num_current=len(current),
        num_reference=len(table),
        p_values=p_values,
        distances=distances,
        shifts=shifts,
        has_input_drift=bool(drifted & set(STATISTICS)),
        has_prediction_drift=bool(drifted - set(STATISTICS)),
        num_outliers=num_outliers,
        has_outliers=outlier_p_value < FALSE_ALARM_RATE,
        outlier_p_value=outlier_p_value,
    )
    verdict, sentences = _explain(changes, current, reference)
    if verdict.has_input_drift:
        sentences.append(describe_inputs(drifted, shifts))
    if verdict.has_prediction_drift:
        suffix = ", as a label shift would cause" if verdict.is_label_shift else ""
        sentences.append(describe_predictions(current, table) + suffix)
    if verdict.has_outliers:
        usual = 100 - OUTLIER_PERCENTILE
        sentences.append(
            f"{num_outliers} of {len(current)} images are outliers, against {usual} % of validation images"
        )
    state = _state(verdict, reference)
    is_drift = verdict.has_prediction_drift or state == DriftState.PREDICTION_DRIFT  # or the distances are chance
    return replace(
        verdict,
        state=state,
        cause=("; ".join(sentences) or "no change beyond chance") + ".",
        severity=_severity(distances, table) if is_drift else Severity.NONE,
    )


def significance_level(column: str, reference: pd.DataFrame) -> float:
    """Return the significance level of a column after Bonferroni's correction for the columns of its tier."""
    return FALSE_ALARM_RATE / (len(STATISTICS) if column in STATISTICS else len(emotions_of(reference)) + 1)


def _explain(verdict: DriftVerdict, current: pd.DataFrame, reference: DriftReference) -> tuple[DriftVerdict, list[str]]:
    """Add to a verdict what may have caused its changes, and return it with sentences on that."""
    table, corruptions = reference.table, reference.corruptions
    weights, attribution, part = None, None, None
    if verdict.has_prediction_drift:
        priors = estimate_class_priors(current, table)
        weights = class_prior_weights(table, priors)
        by_class = dict(zip(emotions_of(table), priors.tolist(), strict=True))
        verdict = replace(verdict, class_priors=by_class, is_label_shift=_explains_all(current, table, weights))
    if corruptions is None:
        return verdict, []
    if (verdict.has_input_drift or verdict.has_prediction_drift) and not verdict.is_label_shift:
        attribution = corruptions.attribute(current)
        smallest = min(_prediction_pvalues(current, attribution.expected, attribution.weights))
        is_explained = attribution.is_near and smallest >= _UNEXPLAINED_P_VALUE
        part = attribution.part if is_explained else None
        verdict = replace(
            verdict,
            nearest_corruptions=attribution.corruptions,
            expected_accuracy_loss=attribution.loss,
            is_lower_bound=attribution.is_lower_bound and is_explained,
        )
        if not is_explained:
            loss, error = corruptions.loss_by_confidence(current)
            # What the window resembles, however little, costs at least something like it.
            loss = attribution.loss if attribution.loss >= HARMFUL_LOSS else max(loss, attribution.loss)
            verdict = replace(verdict, unexplained_p_value=smallest, expected_accuracy_loss=loss, loss_error=error)
    if not (attribution and attribution.is_corruption):
        if attribution:
            weights = class_prior_weights(table, attribution.class_priors)
        detected = corruptions.detect_subpopulation(current, weights)
        # The mixture names a part better than the detectors, which know only the most harmful corruptions.
        part = part or (detected if detected and detected.p_value < FALSE_ALARM_RATE else None)
    return replace(verdict, subpopulation=part), _describe(verdict, attribution, part)


def _describe(verdict: DriftVerdict, attribution: Attribution | None, part: Subpopulation | None) -> list[str]:
    if attribution and attribution.is_corruption and verdict.loss_error is None:
        return [describe_attribution(attribution, part)]
    found = [describe_subpopulation(part)] if part else []
    if attribution and verdict.loss_error is not None:
        found.append(describe_unexplained(attribution, verdict.expected_accuracy_loss or 0.0, verdict.loss_error))
    return found


def _state(verdict: DriftVerdict, reference: DriftReference) -> DriftState:
    if verdict.subpopulation and verdict.subpopulation.loss >= HARMFUL_LOSS:
        return DriftState.PREDICTION_DRIFT
    if verdict.is_label_shift:
        return DriftState.LABEL_SHIFT
    is_harmful = (verdict.expected_accuracy_loss or 0.0) >= HARMFUL_LOSS
    may_be_harmful = verdict.may_be_harmful or reference.corruptions is None
    if is_harmful or (verdict.has_prediction_drift and may_be_harmful):
        return DriftState.PREDICTION_DRIFT
    if verdict.has_input_drift or verdict.has_prediction_drift:
        return DriftState.INPUT_DRIFT
    return DriftState.OUTLIERS if verdict.has_outliers or verdict.subpopulation else DriftState.OK


def _explains_all(current: pd.DataFrame, table: pd.DataFrame, weights: Weights) -> bool:
    """Return whether the reweighted reference explains inputs and predictions: happy faces look different, too."""
    inputs = min(ks_pvalue(current[name], table[name], weights) for name in STATISTICS)
    predictions = min(_prediction_pvalues(current, table, weights))
    explains_inputs = inputs >= significance_level(STATISTICS[0], table)
    return explains_inputs and predictions >= significance_level(EMOTION_COLUMN, table)


def _prediction_pvalues(current: pd.DataFrame, expected: pd.DataFrame, weights: Weights | None = None) -> list[float]:
    """Return the p-value of each probability and of the predicted class against expected predictions."""
    names = probability_columns(emotions_of(expected))
    probabilities = [ks_pvalue(current[name], expected[name], weights) for name in names]
    return [*probabilities, chi2_pvalue(current[EMOTION_COLUMN], expected[EMOTION_COLUMN], weights)]


def _severity(distances: Mapping[str, float], table: pd.DataFrame) -> Severity:
    largest = max(distances[name] for name in probability_columns(emotions_of(table)))
    return next(severity for least, severity in _SEVERITIES if largest >= least)


def _shift(current: pd.Series[float], reference: pd.Series[float]) -> float:
    deviation = float(reference.std())
    return float(current.mean() - reference.mean()) / deviation if deviation > 0 else 0.0
