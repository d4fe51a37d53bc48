"""The gate: may this candidate take the champion's place?

Both are judged on the same test faces. A candidate is rejected when it is worse by an exact McNemar test
(Dietterich 1998, "Approximate statistical tests for comparing supervised classification algorithms":
the test that fits two fixed models on one test set), when it lost more accuracy than may be lost
unnoticed, when a class fell below its floor, or when it is too slow. How often these rules are wrong is
simulated by benchmarks/gate_errors.py; docs/evaluation.md has the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.stats import binomtest

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.steps.evaluation.scores import LabelledPredictions, Scores
from emotion_assets.steps.registry.decision import Decision

_ROUNDING: Final = 1e-9
"""A loss of just what may be lost is none, however its difference was rounded."""


@dataclass(frozen=True, slots=True)
class GateConfig:
    """What a candidate must reach; rates are fractions in 0..1."""

    min_accuracy: float = 0.4
    """For the first model; guessing the most frequent class gives about 0.3."""
    min_recall: float = 0.1
    """For every emotion, always: a model that never says one of them is broken."""
    max_accuracy_loss: float = 0.01
    """Against the champion, whatever the test says: a small test set proves nothing."""
    max_recall_loss: float = 0.08
    """Against the champion, for every emotion."""
    min_faces_lost: int = 3
    """In all, or of an emotion; one or two of a few test faces are chance, whatever fraction of them that is."""
    max_calibration_error: float = 0.15
    min_faces_for_calibration: int = 500
    """On fewer test faces chance alone exceeds the ceiling: with 40 faces in 15 bins it often does."""
    significance: float = 0.05
    max_latency_ms: float = 50
    """For one face on one thread; the service answers no faster than this."""


def decide(
    candidate: LabelledPredictions,
    scores: Scores,
    champion: LabelledPredictions | None,
    champion_scores: Scores | None,
    config: GateConfig | None = None,
    *,
    latency_ms: float | None = None,
) -> Decision:
    """Compare a candidate with the champion on the same faces, or with the floors if there is none.

    Args:
        candidate: the candidate's answers; `champion`, if there is one, answered the same images in the same order.
        scores: of `candidate`; `champion_scores` of `champion`.
        champion: the accepted model's answers.
        champion_scores: their scores.
        config: the rules.
        latency_ms: what one face costs the candidate, if it was measured.
    """
    config = config or GateConfig()
    rejections = _below_floors(scores, config, is_first=champion is None)
    if latency_ms is not None and latency_ms > config.max_latency_ms:
        rejections.append(f"One face takes {latency_ms:.1f} ms, above the ceiling of {config.max_latency_ms:g} ms.")
    if champion is None or champion_scores is None:
        reasons = rejections or [
            f"First model: accuracy {scores.accuracy:.3f} is above the floor of {config.min_accuracy}."
        ]
        return Decision(candidate.version, None, not rejections, reasons, None, None, None, None, latency_ms)
    only_candidate = int(np.sum(candidate.is_right & ~champion.is_right))
    only_champion = int(np.sum(champion.is_right & ~candidate.is_right))
    num_different = only_candidate + only_champion
    p_value = float(binomtest(only_champion, num_different, alternative="greater").pvalue) if num_different else 1.0
    difference = scores.accuracy - champion_scores.accuracy
    if p_value < config.significance:
        rejections.append(
            f"Worse than the champion: {only_champion} faces only the champion gets right, {only_candidate} only "
            f"the candidate (McNemar p = {p_value:.4f} < {config.significance})."
        )
    if difference < -config.max_accuracy_loss - _ROUNDING and only_champion - only_candidate >= config.min_faces_lost:
        rejections.append(
            f"Accuracy fell from {champion_scores.accuracy:.3f} to {scores.accuracy:.3f}, "
            f"by more than {config.max_accuracy_loss}."
        )
    for emotion in EMOTIONS:
        fall = champion_scores.recall[emotion] - scores.recall[emotion]
        if fall > config.max_recall_loss + _ROUNDING and round(fall * scores.support[emotion]) >= config.min_faces_lost:
            rejections.append(
                f"Recall of {emotion} fell from {champion_scores.recall[emotion]:.3f} to {scores.recall[emotion]:.3f}, "
                f"by more than {config.max_recall_loss}."
            )
    reasons = rejections or [f"Not worse than the champion: accuracy {difference:+.3f}, McNemar p = {p_value:.3f}."]
    return Decision(
        candidate.version,
        champion.version,
        not rejections,
        reasons,
        difference,
        p_value,
        only_candidate,
        only_champion,
        latency_ms,
    )


def _below_floors(scores: Scores, config: GateConfig, *, is_first: bool) -> list[str]:
    rejections = []
    if is_first and scores.accuracy < config.min_accuracy:
        rejections.append(
            f"Accuracy {scores.accuracy:.3f} is below the floor of {config.min_accuracy} for a first model."
        )
    for emotion, recall in scores.recall.items():
        if scores.support[emotion] and recall < config.min_recall:
            rejections.append(f"Recall of {emotion} is {recall:.3f}, below the floor of {config.min_recall}.")
    can_tell = scores.num_images >= config.min_faces_for_calibration
    if can_tell and scores.calibration_error > config.max_calibration_error:
        rejections.append(
            f"Calibration error {scores.calibration_error:.3f} is above the ceiling of {config.max_calibration_error}."
        )
    return rejections
