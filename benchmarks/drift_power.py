"""Measure false alarms and power of the drift verdict, beside two rules of Evidently.

Usage: python -m benchmarks.drift_power BUNDLE_DIR SPLITS_DIR FACES_DIR OTHER_DIR [--windows 200] [--tables DIR]

BUNDLE_DIR is a model trained on SPLITS_DIR's train split. FACES_DIR has labelled images of the same source, without
those that are near-duplicates of training images; OTHER_DIR has unlabelled ones of another source. Corruptions act on
the images (`benchmarks.corruptions`). Evidently's default rule for large references is a Wasserstein distance in
standard deviations, or a Jensen-Shannon distance, of at least 0.1 in at least half of the columns: of brightness,
contrast and sharpness, or of all. It is re-implemented, because Evidently takes seconds a window.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance
from threadpoolctl import threadpool_limits

from benchmarks.corruptions import CORRUPTIONS, WITHOUT_FACE, corrupt_images
from benchmarks.labelled_faces import find_labelled, is_near_duplicate, read_pixels
from emotion_assets.core.bundle import CORRUPTIONS_NAME, REFERENCE_NAME
from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.classifier import Classifier
from emotion_assets.core.features import EMOTION_COLUMN, feature_columns
from emotion_assets.core.images import Pixels
from emotion_assets.steps.drift.verdict import DriftReference, DriftState, DriftVerdict, assess
from emotion_assets.steps.reference.reference import TRUE_EMOTION_COLUMN, feature_table
from emotion_assets.steps.splits.splits import read_split

FEW_COLUMNS: Final = ("brightness", "contrast", "sharpness")
SIZES: Final = (50, 200)
HARMFUL_LOSS: Final = 0.05
WINDOWS_PER_REFERENCE: Final = 10
"""Preparing a reference takes a second."""

# The known corruption that the verdict should name; mirrored faces do not matter.
CAUSES: Final = {
    "darker": "darker",
    "brighter": "brighter",
    "lower contrast": "lower in contrast",
    "blur": "blurrier",
    "noise": "noisier",
    "JPEG": "more compressed",
    "tilt": "tilted",
    "black square": "partly occluded",
    "shifted": "shifted sideways",
    "zoomed in": "closer to the camera",
    "zoomed out": "farther away, with a black border",
    "rotated 90°": "rotated by 90°",
    "rotated 180°": "upside down",
    "upside down": "upside down",
    "sunglasses": "covered at the eyes",
    "face mask": "covered at the mouth",
    "inverted": "inverted",
    "shuffled": "shuffled",
    "texture": "unlike faces",
    "stripes": "unlike faces",
}


@dataclass
class Rates:
    """Proportions of windows."""

    inputs: float = 0
    predictions: float = 0
    outliers: float = 0
    subpopulation: float = 0
    acts: float = 0
    signal: float = 0
    """Any state but `ok`."""
    evidently_few: float = 0
    evidently_all: float = 0
    drifted: float = 0
    """With input drift, prediction drift or a subpopulation; those below are proportions of these windows."""
    named_first: float = 0
    """The most probable corruption is the true one."""
    named: float = 0
    expected_loss: list[float] = field(default_factory=list)


def evidently_alarm(current: pd.DataFrame, reference: pd.DataFrame, columns: Iterable[str]) -> bool:
    distances = [_distance(current[name], reference[name]) for name in columns]
    return sum(distance >= 0.1 for distance in distances) >= len(distances) / 2


def _distance(current: pd.Series, reference: pd.Series) -> float:
    if current.name == EMOTION_COLUMN:
        fractions = [
            values.value_counts(normalize=True).reindex(EMOTIONS, fill_value=0) for values in (current, reference)
        ]
        return float(jensenshannon(*fractions))
    return float(wasserstein_distance(reference, current) / max(float(reference.std()), 1e-9))


Outcome = tuple[DriftVerdict, bool, bool]
"""Our verdict, and the alarms of Evidently's rule on few columns and on all."""


def count(outcomes: Iterable[Outcome], cause: str | None = None) -> Rates:
    outcomes = list(outcomes)
    drifted, named_first, named, losses = 0, 0, 0, []
    for verdict, *_ in outcomes:
        part = verdict.subpopulation
        if not (verdict.has_input_drift or verdict.has_prediction_drift or part):
            continue
        drifted += 1
        first = part.corruption if part else next(iter(verdict.nearest_corruptions), "")
        named_first += first == cause
        named += cause in (first, *verdict.nearest_corruptions)
        losses.append(max(verdict.expected_accuracy_loss or 0.0, part.loss if part else 0.0))
    verdicts = [verdict for verdict, *_ in outcomes]
    return Rates(
        inputs=_mean(verdict.has_input_drift for verdict in verdicts),
        predictions=_mean(verdict.has_prediction_drift for verdict in verdicts),
        outliers=_mean(verdict.has_outliers for verdict in verdicts),
        subpopulation=_mean(verdict.subpopulation is not None for verdict in verdicts),
        acts=_mean(verdict.state == DriftState.PREDICTION_DRIFT for verdict in verdicts),
        signal=_mean(verdict.state != DriftState.OK for verdict in verdicts),
        evidently_few=_mean(few for _, few, _ in outcomes),
        evidently_all=_mean(every for *_, every in outcomes),
        drifted=drifted / len(outcomes),
        named_first=named_first / max(drifted, 1),
        named=named / max(drifted, 1),
        expected_loss=losses,
    )


def _mean(flags: Iterable[bool]) -> float:
    return float(np.mean(list(flags)))


def assess_all(window: pd.DataFrame, reference: DriftReference) -> Outcome:
    few, every = (
        evidently_alarm(window, reference.table, columns) for columns in (FEW_COLUMNS, feature_columns(EMOTIONS))
    )
    return assess(window, reference), few, every


def assess_clean(
    size: int, seed: int, pool: pd.DataFrame, fixed: pd.DataFrame | None, profile: pd.DataFrame, windows: int
) -> Rates:
    """Assess windows without drift, with a new reference for every tenth unless one is fixed."""
    rng = np.random.default_rng((size, seed))
    rest = np.arange(len(pool))
    reference = None if fixed is None else DriftReference.from_tables(fixed, profile)
    outcomes = []
    for number in range(windows):
        if fixed is None and number % WINDOWS_PER_REFERENCE == 0:
            order = rng.permutation(len(pool))
            rest = order[len(pool) // 2 :]
            reference = DriftReference.from_tables(pool.iloc[order[: len(pool) // 2]], profile)
        assert reference
        outcomes.append(assess_all(pool.iloc[rng.choice(rest, size, replace=False)], reference))
    return count(outcomes)


def assess_drifted(
    job: tuple[str, int], tables: dict[str, pd.DataFrame], reference: DriftReference, windows: int
) -> Rates:
    """Assess windows of one scenario, given as its name and the size of a window."""
    name, size = job
    rng = np.random.default_rng((11, size))
    table = tables[name]
    drawn = (table.iloc[rng.choice(len(table), size, replace=False)] for _ in range(windows))
    return count((assess_all(window, reference) for window in drawn), true_cause(name))


def true_cause(scenario: str) -> str | None:
    """Return the known corruption that a scenario is, in whole or in part."""
    return next((cause for start, cause in CAUSES.items() if re.match(rf"(\d+ % )?{start}", scenario)), None)


def measure_delays(table: pd.DataFrame, clean: pd.DataFrame, reference: DriftReference) -> list[int]:
    """Return, for fifty onsets within a window of 200, after how many drifted images an incident opens."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(50):
        num_clean = int(rng.integers(0, 200))
        drifted = table.iloc[rng.choice(len(table), 600 - num_clean, replace=False)]
        stream = pd.concat([clean.iloc[rng.choice(len(clean), num_clean, replace=False)], drifted])
        in_a_row, delay = 0, 10_000
        for end in (200, 400, 600):
            verdict = assess(stream.iloc[end - 200 : end], reference)
            in_a_row = in_a_row + 1 if verdict.state == DriftState.PREDICTION_DRIFT else 0
            if in_a_row >= 2 or verdict.is_significant:
                delay = end - num_clean
                break
        found.append(delay)
    return found


def predict_table(classifier: Classifier, pixels: Pixels, class_indices: np.ndarray | None) -> pd.DataFrame:
    table = feature_table(pixels, classifier.predict(pixels).probabilities, EMOTIONS)
    if class_indices is not None:
        table[TRUE_EMOTION_COLUMN] = [EMOTIONS[index] for index in class_indices]
    return table


def predict_tables(options: argparse.Namespace) -> dict[str, pd.DataFrame]:
    """Return features and predictions of everything that windows are drawn from; cached in `--tables`."""
    cache: Path | None = options.tables
    if cache and any(cache.glob("*.parquet")):
        return {path.stem: pd.read_parquet(path) for path in sorted(cache.glob("*.parquet"))}
    classifier = Classifier(options.bundle_dir, 2)
    paths, class_indices = find_labelled(options.faces_dir)
    pixels = read_pixels(paths)
    tables = {"_with_duplicates": predict_table(classifier, pixels, class_indices)}
    new = np.flatnonzero(~is_near_duplicate(pixels, options.splits_dir))
    paths, class_indices, pixels = [paths[index] for index in new], class_indices[new], pixels[new]
    for name in ("val", "test"):
        split = read_split(options.splits_dir, name)
        tables[f"_{name}"] = predict_table(classifier, split.pixels, split.class_indices)
    tables["_new"] = predict_table(classifier, pixels, class_indices)
    tables["_other"] = predict_table(classifier, read_pixels(sorted(options.other_dir.rglob("*.jpg"))), None)
    for name in CORRUPTIONS:
        labels = None if name in WITHOUT_FACE else class_indices
        tables[name] = predict_table(classifier, corrupt_images(paths, name), labels)
    if cache:
        cache.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            table.to_parquet(cache / f"{name}.parquet")
    return tables


def build_scenarios(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return what windows of drift are drawn from: corruptions, label shift, another source, mixtures."""
    new = tables["_new"]
    found = {name: table for name, table in tables.items() if not name.startswith("_")}
    for emotion, fraction in (("happy", 0.45), ("happy", 0.7), ("happy", 0.95), ("happy", 0.0), ("sad", 0.6)):
        is_emotion = (new[TRUE_EMOTION_COLUMN] == emotion).to_numpy()
        weights = np.where(is_emotion, fraction / is_emotion.mean(), (1 - fraction) / (1 - is_emotion.mean()))
        drawn = new.sample(len(new), replace=True, weights=weights, random_state=0)
        found[f"class mix, {100 * fraction:.0f} % {emotion}"] = drawn
    for name, mixed in (
        ("images of another source", tables["_other"]),
        ("texture images", tables["texture"]),
        ("inverted images", tables["inverted"]),
    ):
        for fraction in (0.1, 0.3):
            samples = [
                table.sample(round(2000 * part), replace=True, random_state=0)
                for table, part in ((mixed, fraction), (new, 1 - fraction))
            ]
            found[f"{100 * fraction:.0f} % {name}"] = pd.concat(samples, ignore_index=True)
    found["another source only"] = tables["_other"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle_dir", type=Path)
    parser.add_argument("splits_dir", type=Path)
    parser.add_argument("faces_dir", type=Path)
    parser.add_argument("other_dir", type=Path)
    parser.add_argument("--windows", type=int, default=200)
    parser.add_argument("--clean-windows", type=int, default=1000)
    parser.add_argument("--tables", type=Path, help="cache of the predictions for all images, the slow part")
    options = parser.parse_args()
    tables = predict_tables(options)
    table = pd.read_parquet(options.bundle_dir / REFERENCE_NAME)
    profile = pd.read_parquet(options.bundle_dir / CORRUPTIONS_NAME)
    with ProcessPoolExecutor(2, initializer=threadpool_limits, initargs=(1,)) as pool:
        show_false_alarms(pool, tables, table, profile, options.clean_windows)
        show_scenarios(pool, tables, DriftReference.from_tables(table, profile), options.windows)


def show_false_alarms(
    pool: ProcessPoolExecutor, tables: dict[str, pd.DataFrame], reference: pd.DataFrame, profile: pd.DataFrame, n: int
) -> None:
    print(f"## Without drift, {n:,} windows each\n")
    print(
        "| reference | window | inputs | predictions | outliers | subpopulation | acts "
        "| Evidently, 3 columns | Evidently, all |"
    )
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    # Validation faces first: the corruption profile refers to them by their position.
    everything = pd.concat([tables[name] for name in ("_val", "_test", "_new")], ignore_index=True)
    unseen = pd.concat([tables[name] for name in ("_test", "_new")], ignore_index=True)
    for title, faces, fixed in (
        ("independent half", everything, None),
        ("the model's", unseen, reference),
        ("the model's, images with near-duplicates", tables["_with_duplicates"], reference),
    ):
        for size in (50, 200, 500):
            work = partial(assess_clean, size, pool=faces, fixed=fixed, profile=profile, windows=n // 10)
            rates = list(pool.map(work, range(10)))
            names = ("inputs", "predictions", "outliers", "subpopulation", "acts", "evidently_few", "evidently_all")
            means = [float(np.mean([getattr(each, name) for each in rates])) for name in names]
            print(f"| {title} | {size} | " + " | ".join(f"{value:.3f}" for value in means) + " |", flush=True)


def show_scenarios(
    pool: ProcessPoolExecutor, tables: dict[str, pd.DataFrame], reference: DriftReference, windows: int
) -> None:
    new, drifted = tables["_new"], build_scenarios(tables)
    accuracy = float((new[EMOTION_COLUMN] == new[TRUE_EMOTION_COLUMN]).mean())
    losses = {
        name: accuracy - float((table[EMOTION_COLUMN] == table[TRUE_EMOTION_COLUMN]).mean())
        for name, table in drifted.items()
        if TRUE_EMOTION_COLUMN in table and table[TRUE_EMOTION_COLUMN].notna().all()
    }
    names = sorted(drifted, key=lambda name: losses.get(name, np.inf))
    jobs = [(name, size) for name in names for size in SIZES]
    work = partial(assess_drifted, tables=drifted, reference=reference, windows=windows)
    print(f"\n## With drift, {windows} windows each, the model's reference\n")
    print(
        "| scenario | loss | expected loss | signal, 50 | signal, 200 | acts, 50 | acts, 200 | named first, 200 "
        "| named, 200 | Evidently 3, 200 | Evidently all, 200 |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    found: dict[tuple[str, int], Rates] = {}
    for (name, size), rates in zip(jobs, pool.map(work, jobs), strict=True):
        found[name, size] = rates
        if size == SIZES[-1]:
            show_row(name, losses.get(name), [found[name, each] for each in SIZES])
    show_summary(found, losses)
    print("\n## Images after the onset until an incident opens, windows of 200\n")
    print("| scenario | median | worst of 50 |\n|---|---|---|")
    for name in names:
        if losses.get(name, 0) >= 2 * HARMFUL_LOSS and not name.startswith("class mix"):
            delays = measure_delays(drifted[name], new, reference)
            print(f"| {name} | {np.median(delays):.0f} | {max(delays)} |", flush=True)


def show_row(name: str, loss: float | None, rates: list[Rates]) -> None:
    small, large = rates
    shown = "" if loss is None else f"{100 * loss:.1f}"
    expected = f"{100 * np.mean(large.expected_loss):.1f}" if large.expected_loss else ""
    numbers = [small.signal, large.signal, small.acts, large.acts, large.named_first, large.named]
    numbers += [large.evidently_few, large.evidently_all]
    print(f"| {name} | {shown} | {expected} | " + " | ".join(f"{value:.2f}" for value in numbers) + " |", flush=True)


def show_summary(found: dict[tuple[str, int], Rates], losses: dict[str, float]) -> None:
    print("\n## All labelled corruptions\n")
    print("| window | harmful | lowest signal rate of them | acts: precision | acts: recall | named first | named |")
    print("|---|---|---|---|---|---|---|")
    for size in SIZES:
        rows = {name: found[name, size] for name in losses if name in CORRUPTIONS}
        harmful = {name: rates for name, rates in rows.items() if losses[name] >= HARMFUL_LOSS}
        if not harmful:
            print(f"| {size} | 0 | | | | | |")
            continue
        hits = sum(rates.acts for rates in harmful.values())
        drifted = {name: rates.drifted for name, rates in rows.items() if name != "mirrored"}
        named_first, named = (
            sum(getattr(rows[name], key) * proportion for name, proportion in drifted.items()) / sum(drifted.values())
            for key in ("named_first", "named")
        )
        print(
            f"| {size} | {len(harmful)} | {min(rates.signal for rates in harmful.values()):.3f} "
            f"| {hits / sum(rates.acts for rates in rows.values()):.3f} | {hits / len(harmful):.3f} "
            f"| {named_first:.3f} | {named:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
