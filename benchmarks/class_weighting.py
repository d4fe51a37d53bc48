"""Compare `class_weighting: none` with `balanced`, on faces as they are and on faces with two rare classes.

Usage: python -m benchmarks.class_weighting DATA_ROOT [--preset quick] [--seeds 2]

DATA_ROOT has the splits of five classes. For the second part, 90 % of the images of fear and surprise are left out, and
at most 7,000 training images are kept. All scores are those of the test split, reduced in the same way.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from scipy.special import softmax

from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.evaluation.scores import LabelledPredictions, Scores, compute_scores
from emotion_assets.steps.splits.splits import Split, read_split, write_splits
from emotion_assets.steps.training.calibration import predict_logits
from emotion_assets.steps.training.config import training_config
from emotion_assets.steps.training.train import train

RARE = ("fear", "surprise")
RARE_FRACTION = 0.1
MAX_IMAGES = 7000


def reduce(split: Split, seed: int) -> Split:
    """Leave out most images of the rare classes, and limit the number of all."""
    rng = np.random.default_rng(seed)
    is_rare = np.isin(split.class_indices, [split.emotions.index(name) for name in RARE])
    kept = np.flatnonzero(~is_rare | (rng.random(len(is_rare)) < RARE_FRACTION))
    kept = np.sort(rng.permutation(kept)[:MAX_IMAGES])
    hashes = tuple(split.content_hashes[i] for i in kept)
    return Split(split.pixels[kept], split.class_indices[kept], hashes, split.emotions)


def fit_and_score(splits: dict[str, Split], preset: str, seed: int, class_weighting: str) -> Scores:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_splits(root / "splits", f"{seed}", {name: splits[name] for name in ("train", "val")})
        config = training_config(preset, seed=seed, class_weighting=class_weighting)
        trained = train(root / "splits", root / "runs", config)
    test = splits["test"]
    probabilities = softmax(predict_logits(trained.network, test).astype(np.float64) / trained.temperature, axis=1)
    return compute_scores(
        LabelledPredictions(
            class_weighting, probabilities.astype(np.float32), test.class_indices, emotions=test.emotions
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_root", type=Path)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    whole = {name: read_split(DataPaths(options.data_root).splits, name) for name in ("train", "val", "test")}
    print(
        "| images | class_weighting | seed | accuracy | macro-F1 | calibration error | recall of the rarest | its F1 |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for title in ("rare", "whole"):
        for seed in range(options.seeds):
            splits = whole if title == "whole" else {name: reduce(split, seed) for name, split in whole.items()}
            for class_weighting in ("none", "balanced"):
                scores = fit_and_score(splits, options.preset, seed, class_weighting)
                rarest = min(scores.support, key=lambda emotion: scores.support[emotion])
                found = f"{rarest} {scores.recall[rarest]:.2f} | {scores.f1[rarest]:.2f}"
                print(
                    f"| {title} | {class_weighting} | {seed} | {scores.accuracy:.3f} | {scores.macro_f1:.3f} "
                    f"| {scores.calibration_error:.3f} | {found} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
