"""How often does each tier raise an alarm: without drift, and when images go bad in ways that cost accuracy or not?

Usage: python -m benchmarks.drift_power BUNDLE_DIR SPLITS_DIR FACES_DIR OTHER_DIR [--windows 200] [--tables DIR]

BUNDLE_DIR is a model trained on SPLITS_DIR's train split; FACES_DIR holds labelled images of the same source,
OTHER_DIR unlabelled ones of another. Images that are near-copies of training images are left out. Corruptions
act on the images (`benchmarks.corruptions`). Beside our verdict stand two rules of Evidently with its default
for large references (Wasserstein distance over the deviation, or Jensen-Shannon distance, of at least 0.1 in at least
half of the columns): on the student project's three columns and on all of ours. They are re-implemented, because
Evidently takes seconds a window.
"""

from __future__ import annotations

import argparse
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

from benchmarks.accuracy_over_http import copies_of_training
from benchmarks.corruptions import CORRUPTIONS, WITHOUT_FACE, corrupted
from emotion_assets.core.bundle import CORRUPTIONS_NAME, REFERENCE_NAME
from emotion_assets.core.classes import EMOTIONS, emotion_from_folder
from emotion_assets.core.classifier import Classifier
from emotion_assets.core.features import EMOTION_COLUMN, FEATURE_COLUMNS
from emotion_assets.core.images import Pixels, decode_image
from emotion_assets.steps.drift.attribution import CorruptionProfile
from emotion_assets.steps.drift.verdict import DriftVerdict, judge
from emotion_assets.steps.reference.reference import TRUE_EMOTION_COLUMN, feature_table
from emotion_assets.steps.splits.splits import read_split

BASELINE_COLUMNS: Final = ("brightness", "contrast", "sharpness")
SIZES: Final = (50, 200)
HARM: Final = 0.05
WINDOWS_A_REFERENCE: Final = 10
"""Describing the changes again for every fresh reference is dear."""

# What the verdict should call each corruption; a mirrored face is no change that matters.
CAUSES: Final = {
    "darker": "darker",
    "brighter": "brighter",
    "less contrast": "flatter in contrast",
    "blur": "blurrier",
    "noise": "noisier",
    "JPEG": "harder compressed",
    "tilt": "tilted",
    "black square": "partly covered",
    "shifted": "shifted sideways",
    "zoomed in": "closer to the camera",
    "zoomed out": "farther away, in a frame",
    "turned 90": "turned to the side",
    "turned 180": "upside down",
    "upside down": "upside down",
    "sunglasses": "covered at the eyes",
    "face mask": "covered at the mouth",
    "inverted": "like negatives",
    "shuffled": "cut into pieces",
    "texture": "like no faces at all",
    "stripes": "like no faces at all",
}


@dataclass
class Rates:
    """What happened in some windows, as fractions of them."""

    windows: int = 0
    inputs: float = 0
    answers: float = 0
    acts: float = 0
    odd: float = 0
    part: float = 0
    any: float = 0
    baseline: float = 0
    evidently: float = 0
    alarmed: float = 0
    """An input or answer change, or a part, was seen."""
    cause_first: float = 0
    """Among alarmed windows, like the next: the likeliest change is the true one."""
    cause_named: float = 0
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


def count(verdicts: Iterable[tuple[DriftVerdict, bool, bool]], cause: str | None = None) -> Rates:
    rates, alarmed, first, named = Rates(), 0, 0, 0
    for verdict, baseline, evidently in verdicts:
        rates.windows += 1
        rates.inputs += verdict.has_input_drift
        rates.answers += verdict.has_prediction_drift
        rates.acts += verdict.state == "prediction_drift"
        rates.odd += verdict.has_outliers
        rates.part += verdict.part is not None
        rates.any += verdict.state != "ok"
        rates.baseline += baseline
        rates.evidently += evidently
        if verdict.has_input_drift or verdict.has_prediction_drift or verdict.part:
            alarmed += 1
            named_first = (
                verdict.part.change
                if verdict.part
                else verdict.nearest_corruptions[0]
                if verdict.nearest_corruptions
                else ""
            )
            first += named_first == cause
            named += cause in (named_first, *verdict.nearest_corruptions)
            rates.expected_loss.append(max(verdict.expected_loss or 0.0, verdict.part.loss if verdict.part else 0.0))
    for name in ("inputs", "answers", "acts", "odd", "part", "any", "student", "evidently"):
        setattr(rates, name, getattr(rates, name) / rates.windows)
    rates.alarmed = alarmed / rates.windows
    rates.cause_first, rates.cause_named = first / max(alarmed, 1), named / max(alarmed, 1)
    return rates


def look(
    window: pd.DataFrame, reference: pd.DataFrame, corruptions: CorruptionProfile | None
) -> tuple[DriftVerdict, bool, bool]:
    rules = [evidently_alarm(window, reference, columns) for columns in (BASELINE_COLUMNS, FEATURE_COLUMNS)]
    return judge(window, reference, corruptions), *rules


def without_drift(
    size: int, seed: int, pool: pd.DataFrame, fixed: pd.DataFrame | None, changes: pd.DataFrame, windows: int
) -> Rates:
    """Draw windows, and for every tenth a fresh reference unless one is fixed."""
    rng = np.random.default_rng((size, seed))
    reference, corruptions, rest = (
        fixed,
        CorruptionProfile(fixed, changes) if fixed is not None else None,
        np.arange(len(pool)),
    )
    verdicts = []
    for number in range(windows):
        if fixed is None and number % WINDOWS_A_REFERENCE == 0:
            order = rng.permutation(len(pool))
            rest, reference = order[len(pool) // 2 :], pool.iloc[order[: len(pool) // 2]]
            corruptions = CorruptionProfile(reference, changes)
        window = pool.iloc[rng.choice(rest, size, replace=False)]
        verdicts.append(look(window, reference, corruptions))
    return count(verdicts)


def scenario(
    job: tuple[str, int],
    tables: dict[str, pd.DataFrame],
    reference: pd.DataFrame,
    corruptions: CorruptionProfile,
    windows: int,
) -> Rates:
    name, size = job
    rng = np.random.default_rng((11, size))
    table = tables[name]
    drawn = (table.iloc[rng.choice(len(table), size, replace=False)] for _ in range(windows))
    cause = next(
        (cause for start, cause in CAUSES.items() if name.startswith(start) or f"% {start} among" in name), None
    )
    return count((look(window, reference, corruptions) for window in drawn), cause)


def delays(
    table: pd.DataFrame, before: pd.DataFrame, reference: pd.DataFrame, corruptions: CorruptionProfile
) -> list[int]:
    """Return, for fifty onsets within a window of 200, after how many bad images an incident is open."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(50):
        good = int(rng.integers(0, 200))
        bad = table.iloc[rng.choice(len(table), 600 - good, replace=False)]
        stream = pd.concat([before.iloc[rng.choice(len(before), good, replace=False)], bad])
        in_a_row, seen = 0, 10_000
        for end in (200, 400, 600):
            verdict = judge(stream.iloc[end - 200 : end], reference, corruptions)
            in_a_row = in_a_row + 1 if verdict.state == "prediction_drift" else 0
            if in_a_row >= 2 or verdict.is_significant:
                seen = end - good
                break
        found.append(seen)
    return found


def logged(classifier: Classifier, pixels: Pixels, truth: list[str] | None) -> pd.DataFrame:
    table = feature_table(pixels, classifier.predict(pixels).probabilities)
    if truth is not None:
        table[TRUE_EMOTION_COLUMN] = truth
    return table


def all_tables(options: argparse.Namespace) -> dict[str, pd.DataFrame]:
    """Return the logged values of everything that windows are drawn from; kept in `--tables` where given."""
    keep: Path | None = options.tables
    if keep and any(keep.glob("*.parquet")):
        return {path.stem: pd.read_parquet(path) for path in sorted(keep.glob("*.parquet"))}
    classifier = Classifier(options.bundle_dir, 2)
    paths = [path for path in sorted(options.faces_dir.rglob("*.jpg")) if emotion_from_folder(path.parent.name)]
    paths = [path for path, copy in zip(paths, copies_of_training(paths, options.splits_dir), strict=True) if not copy]
    truth = [str(emotion_from_folder(path.parent.name)) for path in paths]
    tables = {}
    for name in ("val", "test"):
        split = read_split(options.splits_dir, name)
        tables[f"_{name}"] = logged(classifier, split.pixels, [EMOTIONS[index] for index in split.class_indices])
    others = sorted(options.other_dir.rglob("*.jpg"))
    for name, chosen, emotions in (("_new", paths, truth), ("_other", others, None)):
        tables[name] = logged(classifier, np.stack([decode_image(p.read_bytes()).pixels for p in chosen]), emotions)
    for name in CORRUPTIONS:
        tables[name] = logged(classifier, corrupted(paths, name), None if name in WITHOUT_FACE else truth)
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            table.to_parquet(keep / f"{name}.parquet")
    return tables


def with_mixtures(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return what windows of drift are drawn from: corruptions, other mixes of emotions, other sources, mixtures."""
    new = tables["_new"]
    found = {name: table for name, table in tables.items() if not name.startswith("_")}

    def drawn(weights: np.ndarray) -> pd.DataFrame:
        return new.sample(len(new), replace=True, weights=weights, random_state=0)

    for emotion, fraction in (("happy", 0.45), ("happy", 0.7), ("happy", 0.95), ("happy", 0.0), ("sad", 0.6)):
        is_it = (new[TRUE_EMOTION_COLUMN] == emotion).to_numpy()
        weights = np.where(is_it, fraction / is_it.mean(), (1 - fraction) / (1 - is_it.mean()))
        found[f"mix: {fraction:.0%} {emotion}"] = drawn(weights)
    for name, strange in (
        ("other source", tables["_other"]),
        ("texture", tables["texture"]),
        ("inverted", tables["inverted"]),
    ):
        for fraction in (0.1, 0.3):
            parts = [
                table.sample(round(2000 * part), replace=True, random_state=0)
                for table, part in ((strange, fraction), (new, 1 - fraction))
            ]
            found[f"{fraction:.0%} {name} among faces"] = pd.concat(parts, ignore_index=True)
    found["other source"] = tables["_other"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle_dir", type=Path)
    parser.add_argument("splits_dir", type=Path)
    parser.add_argument("faces_dir", type=Path)
    parser.add_argument("other_dir", type=Path)
    parser.add_argument("--windows", type=int, default=200)
    parser.add_argument("--quiet-windows", type=int, default=1000)
    parser.add_argument("--tables", type=Path, help="keeps the answers to all images, the slow part")
    options = parser.parse_args()
    tables = all_tables(options)
    reference = pd.read_parquet(options.bundle_dir / REFERENCE_NAME)
    changes = pd.read_parquet(options.bundle_dir / CORRUPTIONS_NAME)
    with ProcessPoolExecutor(2) as pool:
        show_false_alarms(pool, tables, reference, changes, options.quiet_windows)
        show_scenarios(pool, tables, reference, CorruptionProfile(reference, changes), options.windows)


def show_false_alarms(
    pool: ProcessPoolExecutor, tables: dict[str, pd.DataFrame], reference: pd.DataFrame, changes: pd.DataFrame, n: int
) -> None:
    print(f"## Without drift, {n:,} windows each\n")
    print(
        "| reference | window | inputs | answers | odd | part | acts | Evidently, 3 columns | Evidently, all columns |"
    )
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    # Validation faces first: a corruption profile knows its faces by their position there.
    everything = pd.concat([tables[name] for name in ("_val", "_test", "_new")], ignore_index=True)
    unseen = pd.concat([tables[name] for name in ("_test", "_new")], ignore_index=True)
    for words, faces, fixed in (("fresh half", everything, None), ("the model's", unseen, reference)):
        for size in (50, 200, 500):
            work = partial(without_drift, size, pool=faces, fixed=fixed, changes=changes, windows=n // 10)
            parts = list(pool.map(work, range(10)))
            names = ("inputs", "answers", "odd", "part", "acts", "student", "evidently")
            means = [float(np.mean([getattr(part, name) for part in parts])) for name in names]
            print(f"| {words} | {size} | " + " | ".join(f"{value:.3f}" for value in means) + " |", flush=True)


def show_scenarios(
    pool: ProcessPoolExecutor,
    tables: dict[str, pd.DataFrame],
    reference: pd.DataFrame,
    corruptions: CorruptionProfile,
    windows: int,
) -> None:
    new, drifted = tables["_new"], with_mixtures(tables)
    accuracy = float((new[EMOTION_COLUMN] == new[TRUE_EMOTION_COLUMN]).mean())
    losses = {
        name: accuracy - float((table[EMOTION_COLUMN] == table[TRUE_EMOTION_COLUMN]).mean())
        for name, table in drifted.items()
        if TRUE_EMOTION_COLUMN in table and table[TRUE_EMOTION_COLUMN].notna().all()
    }
    names = sorted(drifted, key=lambda name: losses.get(name, np.inf))
    jobs = [(name, size) for name in names for size in SIZES]
    work = partial(scenario, tables=drifted, reference=reference, corruptions=corruptions, windows=windows)
    print(f"\n## With drift, {windows} windows each, the model's reference\n")
    print(
        "| scenario | lost, points | expected | any, 50 | any, 200 | acts, 50 | acts, 200 | cause first, 200 "
        "| cause named, 200 | Evidently 3, 200 | Evidently all, 200 |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    found: dict[tuple[str, int], Rates] = {}
    for (name, size), rates in zip(jobs, pool.map(work, jobs), strict=True):
        found[name, size] = rates
        if size == SIZES[-1]:
            show_row(name, losses.get(name), [found[name, each] for each in SIZES])
    show_summary(found, losses)
    print("\n## Delay of an incident, windows of 200, images after the onset\n")
    print("| scenario | median | worst of 50 |\n|---|---|---|")
    for name in names:
        if losses.get(name, 0) >= 0.1 and not name.startswith("mix"):
            waited = delays(drifted[name], new, reference, corruptions)
            print(f"| {name} | {np.median(waited):.0f} | {max(waited)} |", flush=True)


def show_row(name: str, loss: float | None, rates: list[Rates]) -> None:
    small, large = rates
    lost = "no label" if loss is None else f"{100 * loss:.1f}"
    expected = f"{100 * np.mean(large.expected_loss):.1f}" if large.expected_loss else ""
    numbers = [small.any, large.any, small.acts, large.acts, large.cause_first, large.cause_named]
    numbers += [large.baseline, large.evidently]
    print(f"| {name} | {lost} | {expected} | " + " | ".join(f"{value:.2f}" for value in numbers) + " |", flush=True)


def show_summary(found: dict[tuple[str, int], Rates], losses: dict[str, float]) -> None:
    print("\n## Summary of the corruptions with labels\n")
    print("| window | harmful scenarios | least caught | acts: precision | acts: recall | cause first | cause named |")
    print("|---|---|---|---|---|---|---|")
    for size in SIZES:
        rows = {name: found[name, size] for name in losses if name in CORRUPTIONS}
        harmful = {name: rates for name, rates in rows.items() if losses[name] >= HARM}
        hits = sum(rates.acts for rates in harmful.values())
        alarmed = {name: rates.alarmed for name, rates in rows.items() if name != "mirrored"}
        causes = [
            sum(getattr(rows[name], key) * fraction for name, fraction in alarmed.items()) / sum(alarmed.values())
            for key in ("cause_first", "cause_named")
        ]
        print(
            f"| {size} | {len(harmful)} | {min(rates.any for rates in harmful.values()):.3f} "
            f"| {hits / sum(rates.acts for rates in rows.values()):.3f} | {hits / len(harmful):.3f} "
            f"| {causes[0]:.3f} | {causes[1]:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
