"""The gate: the rules by which a candidate is accepted as the new champion or rejected.

Candidate and champion predict the same test images. The candidate is rejected when an exact McNemar test finds it worse
(Dietterich 1998, "Approximate statistical tests for comparing supervised classification algorithms": the test for two
fixed models on one test set), when it loses too much accuracy or recall, when it misses a minimum, when it is too slow,
or when its bundle fails the self-test. benchmarks/gate_errors.py simulates the error rates of these rules;
docs/evaluation.md has the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from emotion_assets.steps.evaluation.scores import LabelledPredictions, Scores, compute_scores
from emotion_assets.steps.registry.registry import Decision

_ROUNDING: Final = 1e-9
"""Floating-point tolerance, so that a loss equal to the maximum passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateConfig:
    """The thresholds of the gate; rates are fractions in 0..1."""

    min_skill: float = 0.25
    """Of a first model: (accuracy - chance) / (1 - chance), where chance is 1 / number of classes."""
    min_recall_over_chance: float = 0.5
    """Recall of every class as a multiple of chance: a model that never predicts one of them is broken. It must also be
    significantly below the accuracy on the other classes: of a few test images, none may be predicted by bad luck."""
    min_images_for_recall: int = 3
    """With fewer test images of a class, wrong labels may explain a recall of 0."""
    max_accuracy_loss: float = 0.01
    """Against the champion, even if not significant: a small test set proves nothing."""
    max_recall_loss: float = 0.08
    """Against the champion, for every emotion, if it is significant after Bonferroni's correction for their number."""
    min_images_lost: int = 3
    """Minimum loss of accuracy, in images; one or two in a small test set are noise."""
    min_images_compared: int = 30
    """Of test images that the champion does not know, or half of a small test split: fewer prove nothing."""
    max_calibration_error: float = 0.15
    min_images_for_calibration: int = 500
    """With fewer test images chance alone often exceeds the limit, such as with 40 images in 15 bins."""
    significance_level: float = 0.05
    max_latency_ms: float = 50
    """For one image on one thread."""


def decide(
    candidate: LabelledPredictions,
    champion: LabelledPredictions | None = None,
    config: GateConfig | None = None,
    *,
    is_unseen: npt.NDArray[np.bool_] | None = None,
    latency_ms: float | None = None,
    self_test_error: str | None = None,
) -> Decision:
    """Accept or reject a candidate by its predictions and the champion's, if there is one, for the same images.

    They are compared on the images that `is_unseen`, bool (image,), marks: the champion was not trained on these.
    `latency_ms` is the candidate's, if it was measured, `self_test_error` the message of its failed self-test.
    """
    config = config or GateConfig()
    scores = compute_scores(candidate)
    reject_reasons = [f"The self-test failed: {self_test_error}"] if self_test_error else []
    reject_reasons += _check_minimums(scores, config, is_first=champion is None)
    if latency_ms is not None and latency_ms > config.max_latency_ms:
        reject_reasons.append(
            f"Latency of {latency_ms:.1f} ms for one image exceeds the maximum of {config.max_latency_ms:g} ms."
        )
    notes = []
    if champion is None:
        minimum = _min_accuracy(scores, config)
        first = f"First model: accuracy {scores.accuracy:.3f} meets the minimum of {minimum:.3f}."
        decision = Decision(candidate=candidate.version, is_accepted=True, reasons=[first])
    else:
        if is_unseen is not None and not is_unseen.all():
            candidate, champion = candidate.select(is_unseen), champion.select(is_unseen)
            notes = [f"Compared without {(~is_unseen).sum():,} test images that the champion knows from its training."]
        decision = _compare(candidate, champion, config)
    if not decision.is_accepted:
        reject_reasons += decision.reasons
    return replace(
        decision,
        is_accepted=not reject_reasons,
        reasons=(reject_reasons or decision.reasons) + notes,
        latency_ms=latency_ms,
    )


def _compare(candidate: LabelledPredictions, champion: LabelledPredictions, config: GateConfig) -> Decision:
    """Decide by the comparison alone."""
    before, after = compute_scores(champion).accuracy, compute_scores(candidate).accuracy
    only_candidate = int(np.sum(candidate.is_correct & ~champion.is_correct))
    only_champion = int(np.sum(champion.is_correct & ~candidate.is_correct))
    p_value = _mcnemar_pvalue(only_champion, only_candidate)
    reject_reasons = []
    if p_value < config.significance_level:
        reject_reasons.append(
            f"Significantly worse than the champion: only the champion is correct on {only_champion} images, only the "
            f"candidate on {only_candidate} (McNemar p = {p_value:.4f} < {config.significance_level})."
        )
    is_chance = only_champion - only_candidate < config.min_images_lost
    if before - after > config.max_accuracy_loss + _ROUNDING and not is_chance:
        reject_reasons.append(
            f"Accuracy dropped from {before:.3f} to {after:.3f}, by more than {config.max_accuracy_loss}."
        )
    reject_reasons += _check_recalls_lost(candidate, champion, config)
    accepted = f"Not worse than the champion: accuracy {after - before:+.3f}, McNemar p = {p_value:.3f}."
    return Decision(
        candidate=candidate.version,
        champion=champion.version,
        is_accepted=not reject_reasons,
        reasons=reject_reasons or [accepted],
        accuracy_difference=after - before,
        p_value=p_value,
        num_only_candidate_correct=only_candidate,
        num_only_champion_correct=only_champion,
    )


def _check_minimums(scores: Scores, config: GateConfig, *, is_first: bool) -> Iterator[str]:
    if is_first and scores.accuracy < (minimum := _min_accuracy(scores, config)):
        yield f"Accuracy {scores.accuracy:.3f} is below the minimum of {minimum:.3f} for a first model."
    min_recall = config.min_recall_over_chance / len(scores.emotions)
    for emotion, recall in scores.recall.items():
        if recall < min_recall and _is_significant(emotion, scores, config):
            yield f"Recall of {emotion} is {recall:.3f}, below the minimum of {min_recall:.3f}."
    error = scores.calibration_error
    if scores.num_images >= config.min_images_for_calibration and error > config.max_calibration_error:
        yield f"Calibration error {error:.3f} exceeds the maximum of {config.max_calibration_error}."


def _min_accuracy(scores: Scores, config: GateConfig) -> float:
    chance = 1 / len(scores.emotions)
    return chance + config.min_skill * (1 - chance)


def _is_significant(emotion: str, scores: Scores, config: GateConfig) -> bool:
    """Return whether a recall is significantly below the accuracy on the other classes, corrected for their number."""
    num_images, others = scores.support[emotion], set(scores.emotions) - {emotion}
    if num_images < config.min_images_for_recall:
        return False
    hits = {name: round(scores.recall[name] * scores.support[name]) for name in scores.emotions}
    accuracy = sum(hits[name] for name in others) / max(1, sum(scores.support[name] for name in others))
    p_value = float(binomtest(hits[emotion], num_images, accuracy, alternative="less").pvalue)
    return p_value < config.significance_level / len(scores.emotions)


def _check_recalls_lost(
    candidate: LabelledPredictions, champion: LabelledPredictions, config: GateConfig
) -> Iterator[str]:
    for index, emotion in enumerate(candidate.emotions):
        is_class = candidate.class_indices == index
        before, after = champion.is_correct[is_class], candidate.is_correct[is_class]
        p_value = _mcnemar_pvalue(int((before & ~after).sum()), int((after & ~before).sum()))
        if p_value < config.significance_level / len(candidate.emotions) and (
            before.mean() - after.mean() > config.max_recall_loss + _ROUNDING
        ):
            yield (
                f"Recall of {emotion} dropped from {before.mean():.3f} to {after.mean():.3f}, by more than "
                f"{config.max_recall_loss} (McNemar p = {p_value:.4f})."
            )


def _mcnemar_pvalue(num_lost: int, num_gained: int) -> float:
    """Return the one-sided p-value of the exact test for a worse candidate."""
    num_different = num_lost + num_gained
    return float(binomtest(num_lost, num_different, alternative="greater").pvalue) if num_different else 1.0
