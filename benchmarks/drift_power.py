"""How often does each tier raise an alarm: without drift, and when pictures go bad in ways that cost accuracy or not?

Usage: python -m benchmarks.drift_power BUNDLE_DIR SPLITS_DIR FACES_DIR OTHER_DIR [--windows 200] [--tables DIR]

BUNDLE_DIR is a model trained on SPLITS_DIR's train split; FACES_DIR holds labelled photographs of the same source,
OTHER_DIR unlabelled ones of another. Photographs that are near-copies of training pictures are left out. Corruptions
act on the photographs (`benchmarks.corruptions`). Beside our verdict stand two rules of Evidently with its default
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
from emotion_assets.core.bundle import REFERENCE_NAME, REHEARSAL_NAME
from emotion_assets.core.classifier import Classifier
from emotion_assets.core.emotions import EMOTIONS, emotion_of_folder
from emotion_assets.core.images import Pixels, decode_picture
from emotion_assets.core.logged_values import EMOTION_COLUMN, LOGGED_COLUMNS
from emotion_assets.steps.data.split import read_split
from emotion_assets.steps.drift.likeness import Rehearsal
from emotion_assets.steps.drift.verdict import DriftVerdict, judge
from emotion_assets.steps.training.reference import TRUTH_COLUMN, logged_table

STUDENT_COLUMNS: Final = ("brightness", "contrast", "sharpness")
SIZES: Final = (50, 200)
HARM: Final = 0.05
WINDOWS_A_REFERENCE: Final = 10
"""Describing the changes anew for every fresh reference is dear."""

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
    """What happened in some windows, as shares of them."""

    windows: int = 0
    inputs: float = 0
    answers: float = 0
    acts: float = 0
    odd: float = 0
    part: float = 0
    any: float = 0
    student: float = 0
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
        shares = [
            values.value_counts(normalize=True).reindex(EMOTIONS, fill_value=0) for values in (current, reference)
        ]
        return float(jensenshannon(*shares))
    return float(wasserstein_distance(reference, current) / max(float(reference.std()), 1e-9))


def count(verdicts: Iterable[tuple[DriftVerdict, bool, bool]], cause: str | None = None) -> Rates:
    rates, alarmed, first, named = Rates(), 0, 0, 0
    for verdict, student, evidently in verdicts:
        rates.windows += 1
        rates.inputs += verdict.has_input_change
        rates.answers += verdict.has_answer_change
        rates.acts += verdict.state == "answers_changed"
        rates.odd += verdict.has_odd_pictures
        rates.part += verdict.part is not None
        rates.any += verdict.state != "ok"
        rates.student += student
        rates.evidently += evidently
        if verdict.has_input_change or verdict.has_answer_change or verdict.part:
            alarmed += 1
            named_first = verdict.part.change if verdict.part else verdict.looks_like[0] if verdict.looks_like else ""
            first += named_first == cause
            named += cause in (named_first, *verdict.looks_like)
            rates.expected_loss.append(max(verdict.expected_loss or 0.0, verdict.part.loss if verdict.part else 0.0))
    for name in ("inputs", "answers", "acts", "odd", "part", "any", "student", "evidently"):
        setattr(rates, name, getattr(rates, name) / rates.windows)
    rates.alarmed = alarmed / rates.windows
    rates.cause_first, rates.cause_named = first / max(alarmed, 1), named / max(alarmed, 1)
    return rates


def look(window: pd.DataFrame, reference: pd.DataFrame, rehearsal: Rehearsal | None) -> tuple[DriftVerdict, bool, bool]:
    rules = [evidently_alarm(window, reference, columns) for columns in (STUDENT_COLUMNS, LOGGED_COLUMNS)]
    return judge(window, reference, rehearsal), *rules


def without_drift(
    size: int, seed: int, pool: pd.DataFrame, fixed: pd.DataFrame | None, changes: pd.DataFrame, windows: int
) -> Rates:
    """Draw windows, and for every tenth a fresh reference unless one is fixed."""
    rng = np.random.default_rng((size, seed))
    reference, rehearsal, rest = fixed, Rehearsal(fixed, changes) if fixed is not None else None, np.arange(len(pool))
    verdicts = []
    for number in range(windows):
        if fixed is None and number % WINDOWS_A_REFERENCE == 0:
            order = rng.permutation(len(pool))
            rest, reference = order[len(pool) // 2 :], pool.iloc[order[: len(pool) // 2]]
            rehearsal = Rehearsal(reference, changes)
        window = pool.iloc[rng.choice(rest, size, replace=False)]
        verdicts.append(look(window, reference, rehearsal))
    return count(verdicts)


def scenario(
    job: tuple[str, int], tables: dict[str, pd.DataFrame], reference: pd.DataFrame, rehearsal: Rehearsal, windows: int
) -> Rates:
    name, size = job
    rng = np.random.default_rng((11, size))
    table = tables[name]
    drawn = (table.iloc[rng.choice(len(table), size, replace=False)] for _ in range(windows))
    cause = next(
        (cause for start, cause in CAUSES.items() if name.startswith(start) or f"% {start} among" in name), None
    )
    return count((look(window, reference, rehearsal) for window in drawn), cause)


def delays(table: pd.DataFrame, before: pd.DataFrame, reference: pd.DataFrame, rehearsal: Rehearsal) -> list[int]:
    """Return, for fifty onsets within a window of 200, after how many bad pictures an incident is open."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(50):
        good = int(rng.integers(0, 200))
        bad = table.iloc[rng.choice(len(table), 600 - good, replace=False)]
        stream = pd.concat([before.iloc[rng.choice(len(before), good, replace=False)], bad])
        in_a_row, seen = 0, 10_000
        for end in (200, 400, 600):
            verdict = judge(stream.iloc[end - 200 : end], reference, rehearsal)
            in_a_row = in_a_row + 1 if verdict.state == "answers_changed" else 0
            if in_a_row >= 2 or verdict.is_sure:
                seen = end - good
                break
        found.append(seen)
    return found


def logged(classifier: Classifier, pixels: Pixels, truth: list[str] | None) -> pd.DataFrame:
    table = logged_table(pixels, classifier.predict(pixels).probabilities)
    if truth is not None:
        table[TRUTH_COLUMN] = truth
    return table


def all_tables(options: argparse.Namespace) -> dict[str, pd.DataFrame]:
    """Return the logged values of everything that windows are drawn from; kept in `--tables` where given."""
    keep: Path | None = options.tables
    if keep and any(keep.glob("*.parquet")):
        return {path.stem: pd.read_parquet(path) for path in sorted(keep.glob("*.parquet"))}
    classifier = Classifier(options.bundle_dir, 2)
    paths = [path for path in sorted(options.faces_dir.rglob("*.jpg")) if emotion_of_folder(path.parent.name)]
    paths = [path for path, copy in zip(paths, copies_of_training(paths, options.splits_dir), strict=True) if not copy]
    truth = [str(emotion_of_folder(path.parent.name)) for path in paths]
    tables = {}
    for name in ("val", "test"):
        split = read_split(options.splits_dir, name)
        tables[f"_{name}"] = logged(classifier, split.pixels, [EMOTIONS[index] for index in split.class_indices])
    others = sorted(options.other_dir.rglob("*.jpg"))
    for name, chosen, emotions in (("_new", paths, truth), ("_other", others, None)):
        tables[name] = logged(classifier, np.stack([decode_picture(p.read_bytes()).pixels for p in chosen]), emotions)
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

    for emotion, share in (("happy", 0.45), ("happy", 0.7), ("happy", 0.95), ("happy", 0.0), ("sad", 0.6)):
        is_it = (new[TRUTH_COLUMN] == emotion).to_numpy()
        weights = np.where(is_it, share / is_it.mean(), (1 - share) / (1 - is_it.mean()))
        found[f"mix: {share:.0%} {emotion}"] = drawn(weights)
    for name, strange in (
        ("other source", tables["_other"]),
        ("texture", tables["texture"]),
        ("inverted", tables["inverted"]),
    ):
        for share in (0.1, 0.3):
            parts = [
                table.sample(round(2000 * part), replace=True, random_state=0)
                for table, part in ((strange, share), (new, 1 - share))
            ]
            found[f"{share:.0%} {name} among faces"] = pd.concat(parts, ignore_index=True)
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
    parser.add_argument("--tables", type=Path, help="keeps the answers to all pictures, the slow part")
    options = parser.parse_args()
    tables = all_tables(options)
    reference = pd.read_parquet(options.bundle_dir / REFERENCE_NAME)
    changes = pd.read_parquet(options.bundle_dir / REHEARSAL_NAME)
    with ProcessPoolExecutor(2) as pool:
        show_false_alarms(pool, tables, reference, changes, options.quiet_windows)
        show_scenarios(pool, tables, reference, Rehearsal(reference, changes), options.windows)


def show_false_alarms(
    pool: ProcessPoolExecutor, tables: dict[str, pd.DataFrame], reference: pd.DataFrame, changes: pd.DataFrame, n: int
) -> None:
    print(f"## Without drift, {n:,} windows each\n")
    print(
        "| reference | window | inputs | answers | odd | part | acts | Evidently, 3 columns | Evidently, all columns |"
    )
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    # Validation faces first: a rehearsal knows its faces by their position there.
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
    rehearsal: Rehearsal,
    windows: int,
) -> None:
    new, drifted = tables["_new"], with_mixtures(tables)
    accuracy = float((new[EMOTION_COLUMN] == new[TRUTH_COLUMN]).mean())
    losses = {
        name: accuracy - float((table[EMOTION_COLUMN] == table[TRUTH_COLUMN]).mean())
        for name, table in drifted.items()
        if TRUTH_COLUMN in table and table[TRUTH_COLUMN].notna().all()
    }
    names = sorted(drifted, key=lambda name: losses.get(name, np.inf))
    jobs = [(name, size) for name in names for size in SIZES]
    work = partial(scenario, tables=drifted, reference=reference, rehearsal=rehearsal, windows=windows)
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
    print("\n## Delay of an incident, windows of 200, pictures after the onset\n")
    print("| scenario | median | worst of 50 |\n|---|---|---|")
    for name in names:
        if losses.get(name, 0) >= 0.1 and not name.startswith("mix"):
            waited = delays(drifted[name], new, reference, rehearsal)
            print(f"| {name} | {np.median(waited):.0f} | {max(waited)} |", flush=True)


def show_row(name: str, loss: float | None, rates: list[Rates]) -> None:
    small, large = rates
    lost = "no label" if loss is None else f"{100 * loss:.1f}"
    expected = f"{100 * np.mean(large.expected_loss):.1f}" if large.expected_loss else ""
    numbers = [small.any, large.any, small.acts, large.acts, large.cause_first, large.cause_named]
    numbers += [large.student, large.evidently]
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
            sum(getattr(rows[name], key) * share for name, share in alarmed.items()) / sum(alarmed.values())
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
