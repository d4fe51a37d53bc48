"""Measure the drift verdict on combinations of changes, other borders, and strengths beyond the known ones.

Usage: python -m benchmarks.drift_combinations BUNDLE_DIR SPLITS_DIR FACES_DIR OTHER_DIR [--windows 100] [--tables DIR]

All images of a window are darker, blurred, flatter, noisier or compressed; and three in ten of them are inverted or on
their side, or other emotions prevail. The loss is that of the same images without the change. Arguments as in
`benchmarks.drift_power`; the corruptions are those of `benchmarks.corruptions`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from benchmarks.corruptions import FURTHER, corrupt_images
from benchmarks.drift_power import predict_table
from benchmarks.labelled_faces import find_labelled, is_near_duplicate, read_pixels
from emotion_assets.core.bundle import CORRUPTIONS_NAME, REFERENCE_NAME
from emotion_assets.core.classifier import Classifier
from emotion_assets.core.features import EMOTION_COLUMN
from emotion_assets.steps.drift.verdict import DriftReference, DriftState, DriftVerdict, assess
from emotion_assets.steps.reference.reference import TRUE_EMOTION_COLUMN

SIZES: Final = (100, 200, 500)
PART_FRACTION: Final = 0.3
CHANGES: Final = {
    "unchanged": (),
    "darker": ("darker, × 0.6",),
    "blurred": ("blur, 4 px",),
    "flatter": ("lower contrast, × 0.5",),
    "noisier": ("noise, deviation 30",),
    "compressed": ("JPEG quality 8",),
}
PARTS: Final = {"inverted": "inverted", "on their side": "rotated 90°"}
MIXES: Final = (("happy", 0.9), ("sad", 0.7), ("happy", 0.0))


@dataclass(frozen=True)
class Scenario:
    """What windows are drawn from."""

    title: str
    whole: str
    """Name of the table of all images."""
    part: str = ""
    """Name of the table of `PART_FRACTION` of them; empty for none."""
    mix: tuple[str, float] | None = None
    """An emotion, and its proportion."""


def scenarios() -> Iterator[Scenario]:
    for title, change in CHANGES.items():
        for part_title, part in PARTS.items():
            yield Scenario(f"{title}, 30 % {part_title}", _key(*change), part=_key(*change, part))
        for emotion, proportion in MIXES:
            yield Scenario(f"{title}, {100 * proportion:.0f} % {emotion}", _key(*change), mix=(emotion, proportion))
    for name in FURTHER:
        yield Scenario(name, name)
    yield Scenario("another source", "_other")


def _key(*names: str) -> str:
    return " + ".join(names) or "_new"


def predict_tables(options: argparse.Namespace) -> dict[str, pd.DataFrame]:
    """Return features and predictions of everything that windows are drawn from; cached in `--tables`."""
    paths, class_indices = find_labelled(options.faces_dir)
    pixels = read_pixels(paths)
    new = np.flatnonzero(~is_near_duplicate(pixels, options.splits_dir))
    paths, class_indices = [paths[index] for index in new], class_indices[new]
    classifier = Classifier(options.bundle_dir, 2)
    tables = {}
    for key in {name for each in scenarios() for name in (each.whole, each.part) if name}:
        path: Path | None = options.tables and options.tables / f"{key}.parquet"
        if path and path.exists():
            tables[key] = pd.read_parquet(path)
            continue
        if key == "_other":
            tables[key] = predict_table(classifier, read_pixels(sorted(options.other_dir.rglob("*.jpg"))), None)
        else:
            names = [] if key == "_new" else key.split(" + ")
            tables[key] = predict_table(classifier, corrupt_images(paths, *names), class_indices)
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            tables[key].to_parquet(path)
    return tables


def draw(
    scenario: Scenario, tables: dict[str, pd.DataFrame], size: int, rng: np.random.Generator
) -> tuple[pd.DataFrame, float]:
    """Return a window, and the accuracy that the change costs; NaN without labels."""
    whole, chances = tables[scenario.whole], None
    if scenario.mix:
        emotion, proportion = scenario.mix
        is_emotion = (whole[TRUE_EMOTION_COLUMN] == emotion).to_numpy()
        chances = np.where(is_emotion, proportion / is_emotion.sum(), (1 - proportion) / (~is_emotion).sum())
    indices = rng.choice(len(whole), size, replace=scenario.mix is not None, p=chances)
    window = whole.iloc[indices]
    if scenario.part:
        count = round(PART_FRACTION * size)
        window = pd.concat([tables[scenario.part].iloc[indices[:count]], whole.iloc[indices[count:]]])
    if TRUE_EMOTION_COLUMN not in whole:
        return window, np.nan
    before = tables["_new"].iloc[indices]
    return window, _accuracy(before) - _accuracy(window)


def _accuracy(table: pd.DataFrame) -> float:
    return float((table[EMOTION_COLUMN] == table[TRUE_EMOTION_COLUMN]).mean())


def assess_scenario(
    job: tuple[Scenario, int], tables: dict[str, pd.DataFrame], reference: DriftReference, windows: int
) -> list[tuple[DriftVerdict, float]]:
    scenario, size = job
    rng = np.random.default_rng((13, size))
    drawn = [draw(scenario, tables, size, rng) for _ in range(windows)]
    return [(assess(window, reference), loss) for window, loss in drawn]


def stated_cost(verdict: DriftVerdict) -> float:
    """Return the cost that the verdict states, in points of accuracy."""
    part = verdict.subpopulation.loss if verdict.subpopulation else 0.0
    return 100 * (verdict.expected_accuracy_loss if verdict.expected_accuracy_loss is not None else part)


def show(scenario: Scenario, outcomes: dict[int, list[tuple[DriftVerdict, float]]]) -> None:
    middle = outcomes[SIZES[1]]
    verdicts = [verdict for verdict, _ in middle]
    loss = 100 * float(np.mean([loss for _, loss in middle]))
    costs = [stated_cost(verdict) for verdict in verdicts]
    errors = [abs(cost - loss) for cost in costs]
    is_bound = [verdict.is_lower_bound or verdict.loss_error is not None for verdict in verdicts]
    within = np.mean([bound or error <= 4 for bound, error in zip(is_bound, errors, strict=True)])
    acts = [np.mean([v.state == DriftState.PREDICTION_DRIFT for v, _ in outcomes[size]]) for size in SIZES]
    names = Counter(_named(verdict) for verdict in verdicts).most_common(1)[0][0]
    shown = "" if np.isnan(loss) else f"{loss:.1f}"
    print(
        f"| {scenario.title} | {shown} | {np.mean(costs):.1f} | {within:.2f} | {np.mean(is_bound):.2f} | "
        + " | ".join(f"{value:.2f}" for value in acts)
        + f" | {names} |",
        flush=True,
    )


def _named(verdict: DriftVerdict) -> str:
    if verdict.loss_error is not None:
        return "unexplained"
    names = next(iter(verdict.nearest_corruptions), "")
    return names + (f" + {verdict.subpopulation.corruption}" if verdict.subpopulation else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle_dir", type=Path)
    parser.add_argument("splits_dir", type=Path)
    parser.add_argument("faces_dir", type=Path)
    parser.add_argument("other_dir", type=Path)
    parser.add_argument("--windows", type=int, default=100)
    parser.add_argument("--tables", type=Path, help="cache of the predictions for all images, the slow part")
    options = parser.parse_args()
    tables = predict_tables(options)
    reference = DriftReference.from_tables(
        pd.read_parquet(options.bundle_dir / REFERENCE_NAME), pd.read_parquet(options.bundle_dir / CORRUPTIONS_NAME)
    )
    print(
        "| scenario | loss | stated | within 4 or bound, 200 | bound, 200 | acts, 100 | acts, 200 | acts, 500 | named |"
    )
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    found = list(scenarios())
    jobs = [(scenario, size) for scenario in found for size in SIZES]
    work = partial(assess_scenario, tables=tables, reference=reference, windows=options.windows)
    with ProcessPoolExecutor(2, initializer=threadpool_limits, initargs=(1,)) as pool:
        outcomes = pool.map(work, jobs)
        for scenario in found:
            show(scenario, {size: next(outcomes) for size in SIZES})


if __name__ == "__main__":
    main()
