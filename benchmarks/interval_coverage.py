"""Do 95 % intervals contain the truth in 95 % of cases? Simulated test sets of a known model.

Usage: python -m benchmarks.interval_coverage [--draws 500] [--faces 2000]
"""

from __future__ import annotations

import argparse

import numpy as np

from emotion_assets.steps.evaluation.intervals import _scores_of, _summands, intervals
from emotion_assets.steps.evaluation.scores import LabelledPredictions

PRIORS = np.array([0.17, 0.17, 0.32, 0.21, 0.13])


def population(num: int, rng: np.random.Generator, sharpness: float) -> LabelledPredictions:
    """Images whose true class is drawn from what a slightly over-confident model says of them."""
    truth = rng.choice(5, num, p=PRIORS)
    logits = rng.normal(0, 1, (num, 5))
    logits[np.arange(num), truth] += 1.7
    probabilities = np.exp(logits * sharpness)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return LabelledPredictions("simulated", probabilities.astype(np.float32), truth)


def coverage(num_draws: int, num_faces: int, sharpness: float) -> dict[str, float]:
    """Return the fraction of intervals that contain the value in a population of a million."""
    rng = np.random.default_rng(1)
    everyone = population(1_000_000, rng, sharpness)
    truth = {name: value[0] for name, value in _scores_of(_summands(everyone).sum(axis=0, keepdims=True)).items()}
    hits = dict.fromkeys(truth, 0)
    for number in range(num_draws):
        chosen = rng.integers(0, 1_000_000, num_faces)
        sample = LabelledPredictions("simulated", everyone.probabilities[chosen], everyone.class_indices[chosen])
        for name, (low, high) in intervals(sample, seed=number).items():
            hits[name] += low <= truth[name] <= high
    print(f"true calibration error {truth['calibration_error']:.4f}, accuracy {truth['accuracy']:.3f}")
    return {name: count / num_draws for name, count in hits.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--faces", type=int, default=2000)
    options = parser.parse_args()
    for sharpness in (1.0, 1.6, 2.0):
        print(f"\nsharpness {sharpness}, {options.faces:,} faces, {options.draws} draws")
        for name, fraction in coverage(options.draws, options.faces, sharpness).items():
            print(f"| {name} | {fraction:.3f} |")


if __name__ == "__main__":
    main()
