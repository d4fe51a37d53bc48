"""Check the written splits from scratch: leaks between them, and images that show nothing."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from emotion_assets.core.images import IMAGE_SIZE_PX
from emotion_assets.core.layout import DataPaths
from emotion_assets.core.summary import Row
from emotion_assets.steps.ingest.near_duplicates import MAX_EXACT_IMAGES, compute_descriptors, similar_pairs
from emotion_assets.steps.ingest.store import STORE_NAME, Store
from emotion_assets.steps.ingest.subjects import find_subjects
from emotion_assets.steps.splits.assignment import SPLITS
from emotion_assets.steps.splits.splits import Split, read_assignments, read_split

_CHUNK_IMAGES: Final = 1024
_NUM_SHOWN: Final = 10
_MIN_DEVIATION: Final = 3.0
"""Standard deviation of the gray values, 0..255, below which an image is flat."""
_DARKEST_MEAN: Final = 8.0
_BRIGHTEST_MEAN: Final = 247.0
_WARNING_FRACTION: Final = 0.01
_ERROR_FRACTION: Final = 0.5
_DIVIDED: Final = (
    "Some class has fewer than three groups of different pictures or people, so its groups were divided. The scores "
    "hold for these recordings, not for other people. Add images of at least three people of every class."
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found."""

    rows: list[Row]
    """The first cases, or numbers."""
    problem: str = ""
    """Empty if there is none."""
    is_error: bool = True
    """False where it is only a warning: subjects divided on purpose, near-duplicates that a search in cells missed."""


def find_leaking_images(paths: DataPaths) -> Finding:
    """Compare all stored pixels of each split with those of the others.

    Raises:
        UnusableDataError: the splits are missing or damaged.
    """
    pairs = leaking_pairs([read_split(paths.splits, name) for name in SPLITS])
    divided_images = _divided_images(paths)
    unexpected = [pair for pair in pairs if not divided_images.issuperset(pair)]
    rows: list[Row] = [{"first": first, "second": second} for first, second in (unexpected or pairs)[:_NUM_SHOWN]]
    leaks = _describe(rows, len(unexpected), "near-duplicates", is_divided=bool(pairs))
    with Store(paths.catalogue / STORE_NAME) as store:
        is_exact = store.num_compared() <= MAX_EXACT_IMAGES
    if unexpected and not is_exact:
        problem = f"{len(unexpected):,} near-duplicates are in two splits: among so many images the search misses some."
        return replace(leaks, problem=problem, is_error=False)
    return leaks


def find_leaking_subjects(paths: DataPaths) -> Finding:
    """Look up the subject of every image of the splits again.

    Raises:
        UnusableDataError: the splits are missing or damaged, or a table of subjects is wrong.
    """
    split_of = {name: split for split in SPLITS for name in read_split(paths.splits, split).content_hashes}
    divided_images = _divided_images(paths)
    with Store(paths.catalogue / STORE_NAME) as store:
        hash_of, subjects = store.hashes_by_id(), find_subjects(store, paths)
    found: dict[str, set[str]] = defaultdict(set)
    divided: set[str] = set()
    for content_id, names in subjects.by_content.items():
        content_hash = hash_of.get(content_id, "")
        if content_hash in divided_images:
            divided |= names
        elif content_hash in split_of:
            for name in names:
                found[name].add(split_of[content_hash])
    leaking = sorted(name for name, splits in found.items() if len(splits) > 1)
    rows: list[Row] = [{"subject": name, "splits": ", ".join(sorted(found[name]))} for name in leaking[:_NUM_SHOWN]]
    rows = rows or [{"subject": name, "splits": "divided"} for name in sorted(divided)[:_NUM_SHOWN]]
    if subjects.problem and not leaking:
        return Finding([{"path": path} for path in subjects.unused[:_NUM_SHOWN]], subjects.problem, is_error=False)
    return _describe(rows, len(leaking), "subjects", is_divided=bool(divided))


def _describe(rows: list[Row], num_unexpected: int, things: str, *, is_divided: bool) -> Finding:
    if num_unexpected:
        return Finding(rows, f"{num_unexpected:,} {things} are in two splits. Materialize greyscale_splits again.")
    return Finding(rows, _DIVIDED, is_error=False) if is_divided else Finding(rows)


def _divided_images(paths: DataPaths) -> set[str]:
    table = read_assignments(paths.splits)
    return set(table.loc[table["is_divided"], "content_hash"])


def leaking_pairs(splits: Sequence[Split]) -> list[tuple[str, str]]:
    """Return the pairs of content hashes that are near-duplicates in different splits, from the pixels."""
    hashes = [content_hash for split in splits for content_hash in split.content_hashes]
    split_of = np.concatenate([np.full(len(split.pixels), number) for number, split in enumerate(splits)])
    chunks = [
        split.pixels[start : start + _CHUNK_IMAGES]
        for split in splits
        for start in range(0, len(split.pixels), _CHUNK_IMAGES)
    ]
    descriptors = np.concatenate([compute_descriptors(chunk) for chunk in chunks])
    pairs = similar_pairs(descriptors, np.zeros(len(descriptors), dtype=np.bool_))
    crossing = pairs[split_of[pairs[:, 0]] != split_of[pairs[:, 1]]]
    return [(hashes[first], hashes[second]) for first, second in crossing.tolist()]


def find_empty_images(paths: DataPaths) -> Finding:
    """Count the images of all splits that are black, white, flat, or equal to another one; an image counts once.

    A wrong conversion decodes to these. It is an error if most images are like that.

    Raises:
        UnusableDataError: the splits are missing or damaged.
    """
    means, deviations = [], []
    digests: list[bytes] = []
    for name in SPLITS:
        pixels = read_split(paths.splits, name).pixels
        for start in range(0, len(pixels), _CHUNK_IMAGES):
            flat = pixels[start : start + _CHUNK_IMAGES].reshape(-1, IMAGE_SIZE_PX**2)
            means.append(flat.mean(axis=1))
            deviations.append(flat.std(axis=1))
            digests.extend(hashlib.sha256(row.tobytes()).digest() for row in flat)
    mean = np.concatenate(means)
    is_black, is_white = mean < _DARKEST_MEAN, mean > _BRIGHTEST_MEAN
    is_flat = (np.concatenate(deviations) < _MIN_DEVIATION) & ~is_black & ~is_white
    others = [digests[index] for index in np.flatnonzero(~(is_black | is_white | is_flat))]
    num_black, num_white, num_flat = (int(found.sum()) for found in (is_black, is_white, is_flat))
    num_equal = len(others) - len(set(others))  # beyond the first of equal ones
    rows: list[Row] = [{"black": num_black, "white": num_white, "flat": num_flat, "equal": num_equal}]
    fraction = (num_black + num_white + num_flat + num_equal) / max(1, len(mean))
    if fraction <= _WARNING_FRACTION:
        return Finding(rows)
    problem = (
        f"Of {len(mean):,} images, {num_black:,} are nearly black, {num_white:,} nearly white, {num_flat:,} flat and "
        f"{num_equal:,} equal to another one. Look at train_faces, and at how the files were written."
    )
    return Finding(rows, problem, is_error=fraction > _ERROR_FRACTION)
