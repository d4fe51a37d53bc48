"""Explain drift by known corruptions, and estimate what it costs.

A window is described by the means of its features and of their distances from the center of the reference, which tell a
shift from a change of spread. The means of a mixture are the mixture of the means: a window of darker images, three in
ten of them inverted as well, under other class priors, is a weighted sum of the means of such validation images. So
every hypothesis, a corruption between two strengths with or without another one on some of the images, is fitted by
nonnegative least squares (Lawson and Hanson 1974, "Solving least squares problems"), with the class priors of the
reference and those estimated for the window. Bayes' rule with equal priors gives the posterior of the hypotheses.

No real change equals a simulated one, so a variance is added to each mean. Where even the best hypothesis is farther
from the window than that, or its predictions are not those of the window, nothing known explains the window; its cost
then follows from the model's confidence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import chi2

from emotion_assets.core.features import probability_columns
from emotion_assets.core.image_stats import STATISTICS
from emotion_assets.steps.drift.expected_loss import expected_losses, fit_pooling
from emotion_assets.steps.drift.hypotheses import Condition, Fit, make_hypotheses
from emotion_assets.steps.drift.label_shift import class_prior_weights, class_priors, estimate_class_priors
from emotion_assets.steps.drift.pvalues import Weights
from emotion_assets.steps.drift.subpopulations import (
    MIN_LOSS,
    CorruptionDetector,
    Floats,
    Subpopulation,
    SubpopulationDetector,
)
from emotion_assets.steps.reference.corruptions import (
    CORRUPTION_COLUMN,
    INDEX_COLUMN,
    PART_COLUMN,
    STRENGTH_COLUMN,
    UNCHANGED,
)
from emotion_assets.steps.reference.reference import TRUE_EMOTION_COLUMN, confidence_of, emotions_of

PART_SIGNIFICANCE_LEVEL: Final = 0.01
"""Significance level of a part."""
MIN_PART_IMAGES: Final = 100
"""With fewer images, a strength between two known ones passes for a part too often."""

_MAX_DISTANCE: Final = 1.75
"""Mean squared deviation of a window from a hypothesis, in its variances; beyond this, it explains nothing."""
_MIN_POSTERIOR: Final = 0.15
_MIN_HELD_OUT: Final = 25
"""With fewer held-out images, the fitted ones stand in for them."""
_SHRINKAGE_IMAGES: Final = 20
"""A class with this many images is shrunk halfway to the mean of all images."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """What explains a window best."""

    corruptions: tuple[str, ...]
    """The most probable first; several where they cannot be told apart."""
    loss: float
    """Accuracy that such images cost on validation images, as a fraction; the mean over the posterior."""
    is_lower_bound: bool
    """Whether the images are as strongly corrupted as the strongest known ones, or more."""
    part: Subpopulation | None
    """Another corruption of some of the images, on top of the first one of `corruptions`."""
    class_priors: Floats
    """Under the best explanation, float (class,)."""
    is_near: bool
    """Whether the window is about as near as real changes are to simulated ones."""
    expected: pd.DataFrame
    """Features and predictions of validation images under the best explanation, one row each."""
    weights: Weights
    """Weights of the rows of `expected`, float (row,)."""

    @property
    def is_corruption(self) -> bool:
        """Whether a known corruption of all images is more probable than none."""
        return self.corruptions[0] != UNCHANGED


class CorruptionProfile:
    """The known corruptions of one model, prepared for comparison with windows."""

    def __init__(self, reference: pd.DataFrame, profile: pd.DataFrame) -> None:
        """Prepare the corruptions.

        Args:
            reference: validation images, one row each, by their index in the validation split.
            profile: the table of `steps.reference.corruptions.corruption_profile`: some of these images, in the same
                order under each corruption.
        """
        # The last probability follows from the others.
        self._columns = [*STATISTICS, *probability_columns(emotions_of(reference))[:-1]]
        self._reference = reference
        self._center = reference[self._columns].mean().to_numpy(dtype=np.float64)
        self._spread = np.maximum(reference[self._columns].std().to_numpy(dtype=np.float64), 1e-6)
        keys = [CORRUPTION_COLUMN, STRENGTH_COLUMN, PART_COLUMN]
        self._tables: dict[Any, pd.DataFrame] = dict(iter(profile.groupby(keys, sort=False)))
        self._clean_table = self._tables[UNCHANGED, 0.0, ""]
        self._reference_means = _class_means(self._describe(reference), reference)
        self._reference_error = np.cov(self._describe(reference), rowvar=False) / len(reference)
        self._pooling = fit_pooling(self._clean_table, self._tables.values())
        self._conditions = [self._condition(*key) for key in self._tables]
        self._hypotheses = list(make_hypotheses(self._conditions))
        self._slope, self._slope_error = self._fit_confidence()
        self._fit_detector()

    def attribute(self, current: pd.DataFrame) -> Attribution:
        """Return the best explanation of a window of features and predictions, one row per image."""
        observed = self._describe(current).mean(axis=0)
        priors = np.stack([class_priors(self._reference), estimate_class_priors(current, self._reference)])
        hypotheses = [each for each in self._hypotheses if not each.parts or len(current) >= MIN_PART_IMAGES]
        fits = [fit for each in hypotheses if (fit := each.fit(observed, len(current), priors))]
        log_likelihoods = np.array([fit.log_likelihood for fit in fits])
        posterior = np.exp(log_likelihoods - log_likelihoods.max())
        posterior /= posterior.sum()
        by_name = pd.Series(posterior, index=[fit.hypothesis.name for fit in fits]).groupby(level=0).sum()
        by_name = by_name.sort_values(ascending=False)
        first = str(by_name.index[0])
        best = max((fit for fit in fits if fit.hypothesis.name == first), key=lambda fit: fit.log_likelihood)
        part = _part(best, fits)
        if part and part.p_value >= PART_SIGNIFICANCE_LEVEL:
            part = None
        # If a part is significant, only hypotheses with parts count, otherwise none of them.
        posterior *= np.array([bool(fit.hypothesis.parts) == bool(part) for fit in fits])
        expected, weights = self._expectation(best)
        return Attribution(
            corruptions=tuple(str(name) for name, value in by_name.items() if value >= _MIN_POSTERIOR) or (first,),
            loss=max(float(posterior @ [fit.loss for fit in fits]) / float(posterior.sum()), 0.0),
            is_lower_bound=best.hypothesis.is_strongest,
            part=part,
            class_priors=best.weights.sum(axis=0),
            is_near=best.distance <= _MAX_DISTANCE,
            expected=expected,
            weights=weights,
        )

    def loss_by_confidence(self, current: pd.DataFrame) -> tuple[float, float]:
        """Return the accuracy that a window's loss of confidence suggests, and the error of this estimate.

        The model's mean confidence is compared with that for validation images under the window's class priors. The
        loss is proportional to the difference; the error is that for kinds of corruptions left out of the fit.
        """
        weights = class_prior_weights(self._reference, estimate_class_priors(current, self._reference))
        usual = float(np.average(confidence_of(self._reference), weights=weights))
        return max(self._slope * (usual - float(confidence_of(current).mean())), 0.0), self._slope_error

    def detect_subpopulation(self, current: pd.DataFrame, weights: Weights | None = None) -> Subpopulation | None:
        """Return the most significant corrupted subpopulation of a window that looks unchanged as a whole.

        Under other class priors, `weights`, float (image,), are those of the rows of the reference.
        """
        weights = np.ones(len(self._is_held_out)) if weights is None else weights
        return self._detector.detect(self._standardize(current), weights[self._is_held_out])

    def _condition(self, name: str, strength: float, part: str) -> Condition:
        table = self._tables[name, strength, part]
        shifts = self._describe(table) - self._describe(self._clean_table.head(len(table)))
        losses = self._class_losses(table)
        if part:
            # Of fewer images than the part alone, so these tell only what the combination adds to it.
            alone = next(each for (whole, _, _), each in self._tables.items() if whole == part)
            losses += self._class_losses(alone) - self._class_losses(alone.head(len(table)))
        return Condition(
            name=name,
            strength=strength,
            part=part,
            table=table,
            means=self._reference_means + _class_means(shifts, table),
            shift=shifts.mean(axis=0),
            covariance=np.cov(self._describe(table), rowvar=False),
            error=self._reference_error + np.cov(shifts, rowvar=False) / len(table),
            losses=losses,
            loss=max(float(class_priors(self._reference) @ losses), 0.0),
        )

    def _class_losses(self, table: pd.DataFrame) -> Floats:
        """Return the expected loss of accuracy of images under a corruption, float (class,)."""
        losses = expected_losses(self._clean_table.head(len(table)), table, self._pooling)
        return _class_means(losses[:, None], table)[:, 0]

    def _expectation(self, fit: Fit) -> tuple[pd.DataFrame, Weights]:
        """Return the validation images of a fit's conditions with their weights; for the clean one, all."""
        tables, weights = [], []
        for condition, weight in zip(fit.hypothesis.conditions, fit.weights, strict=True):
            if weight.sum() > 0:
                is_clean = condition.name == UNCHANGED
                tables.append(self._reference if is_clean else condition.table)
                rows = class_prior_weights(tables[-1], weight / weight.sum())
                weights.append(weight.sum() * rows / rows.sum())
        return pd.concat(tables, ignore_index=True), np.concatenate(weights)

    def _fit_confidence(self) -> tuple[float, float]:
        """Fit the loss of accuracy per loss of confidence, and its error for kinds of corruptions left out."""
        names = np.array([each.part or each.name.partition(",")[0] for each in self._conditions])
        lost = np.array(
            [
                confidence_of(self._clean_table.head(len(each.table))).mean() - confidence_of(each.table).mean()
                for each in self._conditions
            ]
        )
        losses = np.array([each.loss for each in self._conditions])

        def slope(used: npt.NDArray[np.bool_]) -> float:
            return float(lost[used] @ losses[used] / max(lost[used] @ lost[used], 1e-9))

        errors = [slope(names != name) * lost[names == name] - losses[names == name] for name in sorted(set(names))]
        return slope(names != ""), float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))

    def _fit_detector(self) -> None:
        """Fit the subpopulation detector on half of the reference at most; the rest is held out."""
        count = min(len(self._clean_table), len(self._reference) // 2)
        self._is_held_out = ~np.isin(self._reference.index, self._clean_table[INDEX_COLUMN].to_numpy()[:count])
        clean = self._standardize(self._clean_table)[:count]
        others = self._standardize(self._reference[self._is_held_out])
        harmful = []
        for each in self._conditions:
            if each.loss >= MIN_LOSS and not each.part:
                values = self._standardize(each.table)
                fitted, held_out = values[:count], values[count:]
                held_out = held_out if len(held_out) >= _MIN_HELD_OUT else fitted
                harmful.append(CorruptionDetector(each.name, each.loss, clean, others, fitted, held_out))
        self._detector = SubpopulationDetector(harmful)

    def _describe(self, table: pd.DataFrame) -> Floats:
        """Return float (image, feature): the standardized features and their absolute values."""
        standardized = self._standardize(table)
        return np.hstack([standardized, np.minimum(np.abs(standardized), 4)])

    def _standardize(self, table: pd.DataFrame) -> Floats:
        """Return float (image, column), in standard deviations of the reference."""
        deviations = (table[self._columns].to_numpy(dtype=np.float64) - self._center) / self._spread
        return np.asarray(np.clip(deviations, -6, 6))


def _part(best: Fit, fits: Iterable[Fit]) -> Subpopulation | None:
    """Return the part of a fit, with the p-value of a likelihood-ratio test against all fits without a part."""
    parts = best.hypothesis.parts
    if not parts:
        return None
    without = max(fit.log_likelihood for fit in fits if not fit.hypothesis.parts)
    weights = best.weights[len(best.hypothesis.whole) :].sum(axis=1)
    # Half, because a fraction is not negative (Chernoff 1954).
    p_value = float(chi2.sf(max(2 * (best.log_likelihood - without), 0.0), 1)) / 2
    loss = float(weights @ [each.loss for each in parts])
    return Subpopulation(parts[0].part or parts[0].name, float(weights.sum()), loss, p_value)


def _class_means(values: Floats, table: pd.DataFrame) -> Floats:
    """Return the mean of each class's rows, float (class, column), drawn to the mean of all for small classes."""
    truth = table[TRUE_EMOTION_COLUMN].to_numpy()
    mean = values.mean(axis=0)
    sums = np.stack([(values[truth == emotion] - mean).sum(axis=0) for emotion in emotions_of(table)])
    counts = np.array([(truth == emotion).sum() for emotion in emotions_of(table)])
    return np.asarray(mean + sums / (counts + _SHRINKAGE_IMAGES)[:, None])
