"""How often does each tier raise an alarm: without drift, and under corruptions that cost accuracy or do not?

Usage: python -m benchmarks.drift_power BUNDLE_DIR SPLITS_DIR [--windows 300]

Reference: half of the held-out faces (val and test), drawn anew for each set of windows; windows: the other half.
Corruptions act on the 64×64 pixels. Beside our verdict stands the student project's rule: brightness, contrast
and sharpness by Evidently's default for large references (Wasserstein distance over the deviation of at least
0.1, in at least half of the columns), re-implemented, because Evidently itself takes seconds a window.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter
from scipy.stats import wasserstein_distance

from emotion_assets.core.classifier import Classifier
from emotion_assets.core.emotions import EMOTIONS
from emotion_assets.core.images import Pixels
from emotion_assets.steps.data.split import Split, read_split
from emotion_assets.steps.drift.verdict import judge
from emotion_assets.steps.training.reference import TRUTH_COLUMN, reference_table

STUDENT_COLUMNS = ("brightness", "contrast", "sharpness")


def each(change: Callable[[Image.Image], Image.Image]) -> Callable[[Pixels], Pixels]:
    return lambda pixels: np.stack([np.asarray(change(Image.fromarray(face))) for face in pixels])


def scaled(factor: float, offset: float = 0) -> Callable[[Pixels], Pixels]:
    return lambda pixels: np.clip(pixels * factor + offset, 0, 255).astype(np.uint8)


def noisy(deviation: float) -> Callable[[Pixels], Pixels]:
    def change(pixels: Pixels) -> Pixels:
        noise = np.random.default_rng(0).normal(0, deviation, pixels.shape)
        return np.clip(pixels + noise, 0, 255).astype(np.uint8)

    return change


def covered(share: float) -> Callable[[Pixels], Pixels]:
    def change(pixels: Pixels) -> Pixels:
        side = round(64 * share)
        changed, low = pixels.copy(), (64 - side) // 2
        changed[:, low : low + side, low : low + side] = 0
        return changed

    return change


CORRUPTIONS: dict[str, Callable[[Pixels], Pixels]] = {
    "darker x0.8": scaled(0.8),
    "darker x0.4": scaled(0.4),
    "brighter +50": scaled(1, 50),
    "less contrast x0.5": scaled(0.5, 64),
    "blur 1 px": each(lambda face: face.filter(ImageFilter.GaussianBlur(1))),
    "blur 2.5 px": each(lambda face: face.filter(ImageFilter.GaussianBlur(2.5))),
    "noise sd 8": noisy(8),
    "noise sd 25": noisy(25),
    "tilt 15 degrees": each(lambda face: face.rotate(15, Image.Resampling.BILINEAR)),
    "tilt 30 degrees": each(lambda face: face.rotate(30, Image.Resampling.BILINEAR)),
    "turned 90 degrees": each(lambda face: face.rotate(90)),
    "upside down": each(lambda face: face.transpose(Image.Transpose.FLIP_TOP_BOTTOM)),
    "black square 25 %": covered(0.25),
    "black square 40 %": covered(0.4),
    "shifted sideways 25 %": lambda pixels: np.roll(pixels, 16, axis=2),
    "zoomed in to 65 %": each(lambda face: face.crop((11, 11, 53, 53)).resize((64, 64), Image.Resampling.BILINEAR)),
    "inverted": lambda pixels: (255 - pixels).astype(np.uint8),
}


def logged(classifier: Classifier, split: Split) -> pd.DataFrame:
    return reference_table(split, classifier.predict(split.pixels).probabilities)


def student_alarm(current: pd.DataFrame, reference: pd.DataFrame) -> bool:
    drifted = [
        wasserstein_distance(reference[name], current[name]) / max(float(reference[name].std()), 1e-9) >= 0.1
        for name in STUDENT_COLUMNS
    ]
    return sum(drifted) >= len(drifted) / 2


def rates(current: pd.DataFrame, reference: pd.DataFrame, size: int, windows: int, seed: int) -> dict[str, float]:
    """Return the share of windows in which each rule raises an alarm."""
    rng = np.random.default_rng(seed)
    counts = dict.fromkeys(("inputs", "answers", "acts", "odd", "any", "student"), 0)
    for _ in range(windows):
        window = current.iloc[rng.choice(len(current), size, replace=size > len(current))]
        verdict = judge(window, reference)
        counts["inputs"] += verdict.has_input_change
        counts["answers"] += verdict.has_answer_change
        counts["acts"] += verdict.state == "answers_changed"
        counts["odd"] += verdict.has_odd_pictures
        counts["any"] += verdict.state != "ok"
        counts["student"] += student_alarm(window, reference)
    return {name: count / windows for name, count in counts.items()}


def row(name: str, loss: str, size: int, found: dict[str, float]) -> str:
    return f"| {name} | {loss} | {size} | " + " | ".join(f"{value:.3f}" for value in found.values()) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle_dir", type=Path)
    parser.add_argument("splits_dir", type=Path)
    parser.add_argument("--windows", type=int, default=300)
    options = parser.parse_args()
    classifier = Classifier(options.bundle_dir, 2)
    parts = [read_split(options.splits_dir, name) for name in ("val", "test")]
    held = Split(
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.class_indices for part in parts]),
        (*parts[0].content_hashes, *parts[1].content_hashes),
    )
    table = logged(classifier, held)
    print("| scenario | accuracy lost, points | window | inputs | answers | acts | odd | any | student's rule |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for size in (50, 200, 500):
        found: list[dict[str, float]] = []
        for seed in range(10):
            order = np.random.default_rng(seed).permutation(len(table))
            half = len(table) // 2
            found.append(rates(table.iloc[order[half:]], table.iloc[order[:half]], size, options.windows // 10, seed))
        print(
            row("no drift", "0", size, {name: float(np.mean([f[name] for f in found])) for name in found[0]}),
            flush=True,
        )
    order = np.random.default_rng(0).permutation(len(table))
    reference, rest = table.iloc[order[: len(table) // 2]], order[len(table) // 2 :]
    plain = Split(held.pixels[rest], held.class_indices[rest], tuple(held.content_hashes[i] for i in rest))
    accuracy = (table["emotion"] == table[TRUTH_COLUMN]).iloc[rest].mean()
    happy = table.iloc[rest]
    weights = np.where(happy[TRUTH_COLUMN] == EMOTIONS[2], 6.0, 1.0)
    smiling = happy.sample(1000, replace=True, weights=weights, random_state=0)
    gain = 100 * (accuracy - (smiling["emotion"] == smiling[TRUTH_COLUMN]).mean())
    scenarios = {"many more happy faces": (smiling, gain)}
    for name, change in CORRUPTIONS.items():
        changed = logged(classifier, Split(change(plain.pixels), plain.class_indices, plain.content_hashes))
        scenarios[name] = (changed, 100 * (accuracy - (changed["emotion"] == changed[TRUTH_COLUMN]).mean()))
    for name, (changed, loss) in scenarios.items():
        for size in (50, 200):
            print(row(name, f"{loss:.1f}", size, rates(changed, reference, size, 60, 1)), flush=True)


if __name__ == "__main__":
    main()
