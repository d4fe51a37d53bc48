"""Measure how often 95 % intervals contain the true score, on simulated test sets of a known model.

Usage: python -m benchmarks.interval_coverage [--draws 500] [--faces 2000] [--skill 1.7]
"""

from __future__ import annotations

import argparse

import numpy as np

from emotion_assets.steps.evaluation.intervals import compute_intervals
from emotion_assets.steps.evaluation.scores import SCORE_NAMES, LabelledPredictions, compute_scores

PRIORS = np.array([0.17, 0.17, 0.32, 0.21, 0.13])
POPULATION = 1_000_000


def simulate_population(rng: np.random.Generator, sharpness: float, skill: float) -> LabelledPredictions:
    """Draw true classes and the predictions of a model; a sharpness above that of its skill is overconfident."""
    class_indices = rng.choice(5, POPULATION, p=PRIORS)
    logits = rng.normal(0, 1, (POPULATION, 5))
    logits[np.arange(POPULATION), class_indices] += skill
    probabilities = np.exp(logits * sharpness)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return LabelledPredictions("simulated", probabilities.astype(np.float32), class_indices)


def coverage(num_draws: int, num_faces: int, sharpness: float, skill: float) -> dict[str, float]:
    """Return the proportion of intervals that contain the value in a population of a million."""
    rng = np.random.default_rng(1)
    population = simulate_population(rng, sharpness, skill)
    scores = compute_scores(population)
    true_scores = {name: getattr(scores, name) for name in SCORE_NAMES}
    for rate in ("precision", "recall", "f1"):
        true_scores |= {f"{rate}_{emotion}": value for emotion, value in getattr(scores, rate).items()}
    hits = dict.fromkeys(true_scores, 0)
    for _ in range(num_draws):
        chosen = rng.integers(0, POPULATION, num_faces)
        sample = LabelledPredictions("simulated", population.probabilities[chosen], population.class_indices[chosen])
        for name, (low, high) in compute_intervals(sample).items():
            hits[name] += low <= true_scores[name] <= high
    print(f"true calibration error {true_scores['calibration_error']:.4f}, accuracy {true_scores['accuracy']:.3f}")
    return {name: count / num_draws for name, count in hits.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--faces", type=int, default=2000)
    parser.add_argument("--skill", type=float, default=1.7, help="1.7 gives an accuracy of 0.71, 5 of 0.99")
    options = parser.parse_args()
    for sharpness in (1.0, 1.6, 2.0):
        print(f"\nsharpness {sharpness}, {options.faces:,} faces, {options.draws} draws")
        for name, proportion in coverage(options.draws, options.faces, sharpness, options.skill).items():
            print(f"| {name} | {proportion:.3f} |")


if __name__ == "__main__":
    main()
