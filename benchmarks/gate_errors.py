"""How often is the gate wrong? Candidates of known quality against a champion, on simulated test faces.

Usage: python -m benchmarks.gate_errors [--draws 2000]

Champion and candidate are right on a face independently given the face's own difficulty, so they disagree as
two trainings of one recipe do: on about a fifth of the faces at an accuracy of 0.71.
"""

from __future__ import annotations

import argparse

import numpy as np

from emotion_assets.steps.evaluation.gate import GateConfig, decide
from emotion_assets.steps.evaluation.scores import LabelledPredictions, score

PRIORS = np.array([0.17, 0.17, 0.32, 0.21, 0.13])
ACCURACY = 0.71
LOSSES = (0.0, 0.01, 0.02, 0.03)
SIZES = (1000, 3000, 6000)
GAINS = (0.01, 0.02)


def chance_of(difficulty: np.ndarray, accuracy: float) -> np.ndarray:
    """Return each face's chance to be answered rightly, of mean `accuracy`; most faces are easy or hopeless."""
    low, high = -8.0, 8.0
    for _ in range(50):
        middle = (low + high) / 2
        if (1 / (1 + np.exp(-(middle - difficulty)))).mean() < accuracy:
            low = middle
        else:
            high = middle
    return 1 / (1 + np.exp(-((low + high) / 2 - difficulty)))


def answered(version: str, truth: np.ndarray, chance: np.ndarray, rng: np.random.Generator) -> LabelledPredictions:
    """Return answers that are right with each face's `chance`, and calibrated on the whole."""
    right = rng.random(len(truth)) < chance
    said = np.where(right, truth, (truth + rng.integers(1, 5, len(truth))) % 5)
    probabilities = np.full((len(truth), 5), (1 - ACCURACY) / 4, dtype=np.float32)
    probabilities[np.arange(len(truth)), said] = ACCURACY
    return LabelledPredictions(version, probabilities, truth)


def rejection_rate(num_faces: int, loss: float, num_draws: int) -> tuple[float, float]:
    """Return the fraction of candidates worse by `loss` that are rejected, and the mean fraction of disagreement."""
    rng = np.random.default_rng(round(1000 * loss) + num_faces)
    difficulty = rng.logistic(0, 1.8, num_faces)
    num_rejected, disagreement = 0, 0.0
    for _ in range(num_draws):
        truth = rng.choice(5, num_faces, p=PRIORS)
        champion = answered("champion", truth, chance_of(difficulty, ACCURACY), rng)
        candidate = answered("candidate", truth, chance_of(difficulty, ACCURACY - loss), rng)
        disagreement += float((champion.is_right != candidate.is_right).mean())
        decision = decide(candidate, score(candidate), champion, score(champion), GateConfig())
        num_rejected += not decision.is_accepted
    return num_rejected / num_draws, disagreement / num_draws


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    options = parser.parse_args()
    print("| true difference | " + " | ".join(f"{size:,} faces" for size in SIZES) + " |")
    print("|---|" + "---|" * len(SIZES))
    for loss in (*(-gain for gain in reversed(GAINS)), *LOSSES):
        cells = []
        for size in SIZES:
            rate, disagreement = rejection_rate(size, loss, options.draws)
            cells.append(f"{rate:.3f}")
        print(f"| {-loss:+.2f} | " + " | ".join(cells) + " |", flush=True)
    print(f"\nshare of rejected candidates; disagreement {disagreement:.3f}; {options.draws} draws a cell")


if __name__ == "__main__":
    main()
