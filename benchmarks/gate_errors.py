"""Simulate the error rates of the gate: candidates of known accuracy against a champion.

Usage: python -m benchmarks.gate_errors [--draws 2000] [--classes 5]

Champion and candidate are correct on a face independently, given the difficulty of the face. So they disagree as two
trainings of one recipe do: on about a fifth of the faces at an accuracy of 0.71.
"""

from __future__ import annotations

import argparse

import numpy as np

from emotion_assets.steps.evaluation.gate import decide
from emotion_assets.steps.evaluation.scores import LabelledPredictions

ACCURACY = 0.71
LOSSES = (0.0, 0.01, 0.02, 0.03)
SIZES = (1000, 3000, 6000)
GAINS = (0.01, 0.02)


def correct_probability(difficulty: np.ndarray, accuracy: float) -> np.ndarray:
    """Return the probability of a correct prediction for each face, with mean `accuracy`."""
    low, high = -8.0, 8.0
    for _ in range(50):
        middle = (low + high) / 2
        if (1 / (1 + np.exp(-(middle - difficulty)))).mean() < accuracy:
            low = middle
        else:
            high = middle
    return 1 / (1 + np.exp(-((low + high) / 2 - difficulty)))


def simulate(
    version: str, class_indices: np.ndarray, probability: np.ndarray, rng: np.random.Generator, num_classes: int
) -> LabelledPredictions:
    """Return predictions that are correct with the given probability of each face, and calibrated overall."""
    is_correct = rng.random(len(class_indices)) < probability
    wrong = (class_indices + rng.integers(1, num_classes, len(class_indices))) % num_classes
    predicted = np.where(is_correct, class_indices, wrong)
    rest = (1 - ACCURACY) / (num_classes - 1)
    probabilities = np.full((len(class_indices), num_classes), rest, dtype=np.float32)
    probabilities[np.arange(len(class_indices)), predicted] = ACCURACY
    return LabelledPredictions(version, probabilities, class_indices, emotions=tuple(map(str, range(num_classes))))


def rejection_rate(num_faces: int, loss: float, num_draws: int, num_classes: int) -> tuple[float, float]:
    """Return the proportion of rejected candidates that are worse by `loss`, and the mean disagreement."""
    rng = np.random.default_rng(round(1000 * loss) + num_faces)
    priors = np.linspace(1, 2, num_classes) / np.linspace(1, 2, num_classes).sum()
    difficulty = rng.logistic(0, 1.8, num_faces)
    num_rejected, disagreement = 0, 0.0
    for _ in range(num_draws):
        class_indices = rng.choice(num_classes, num_faces, p=priors)
        champion = simulate("champion", class_indices, correct_probability(difficulty, ACCURACY), rng, num_classes)
        candidate = simulate(
            "candidate", class_indices, correct_probability(difficulty, ACCURACY - loss), rng, num_classes
        )
        disagreement += float((champion.is_correct != candidate.is_correct).mean())
        num_rejected += not decide(candidate, champion).is_accepted
    return num_rejected / num_draws, disagreement / num_draws


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--classes", type=int, default=5, help="the most frequent has twice the images of the rarest")
    options = parser.parse_args()
    print("| true difference | " + " | ".join(f"{size:,} faces" for size in SIZES) + " |")
    print("|---|" + "---|" * len(SIZES))
    for loss in (*(-gain for gain in reversed(GAINS)), *LOSSES):
        cells = []
        for size in SIZES:
            rate, disagreement = rejection_rate(size, loss, options.draws, options.classes)
            cells.append(f"{rate:.3f}")
        print(f"| {0 - loss:+.2f} | " + " | ".join(cells) + " |", flush=True)
    print(f"\nProportion of rejected candidates; disagreement {disagreement:.3f}; {options.draws} draws a cell.")


if __name__ == "__main__":
    main()
