"""Deal pictures into train, val and test so that no photograph is in two of them, now or ever.

A picture once assigned keeps its split: the ledger, an append-only text file, remembers it by content.
Near-duplicates share a split. New groups of near-duplicates are dealt in the order of a hash of their
content, each to the split that lacks most of its class, so one delivery gives the same splits whatever
the names and the order of its files are, and the shares are met to within a group.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from emotion_assets.core.emotions import EMOTIONS
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.files import locked, remove_drafts, sha256_of, sync_folder, write_atomically, write_json
from emotion_assets.core.images import IMAGE_SIZE_PX, Pixels
from emotion_assets.steps.data.catalogue import LOCK_NAME as CATALOGUE_LOCK_NAME
from emotion_assets.steps.data.catalogue import STORE_NAME
from emotion_assets.steps.data.near_duplicates import compare_new_contents, describe, similar_pairs
from emotion_assets.steps.data.store import Store
from emotion_assets.steps.data.table import conflicts, publish

SPLITS: Final = ("train", "val", "test")
SHARES: Final = {"train": 0.8, "val": 0.1, "test": 0.1}
LEDGER_NAME: Final = "ledger.csv"
LOCK_NAME: Final = ".lock"
MANIFEST_NAME: Final = "manifest.json"
MIN_PICTURES_PER_CLASS: Final = 10

# Changes which group goes where; changing it would move every picture of a rebuilt ledger.
_SALT: Final = b"emotion-splits-1"
_ARRAYS: Final = ("pixels", "class_indices", "content_hashes")
_NUM_REASONS_SHOWN: Final = 2

LABEL_CONFLICT: Final = "left_out_label_conflict"
TIES_SPLITS: Final = "left_out_ties_splits"


@dataclass(frozen=True, slots=True)
class Split:
    """The pictures of one split, in the order of their content hashes."""

    pixels: Pixels
    """uint8 (picture, row, column), 0..255."""
    class_indices: npt.NDArray[np.int64]
    """int64 (picture,), positions in EMOTIONS."""
    content_hashes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SplitReport:
    """The splits as they were written: a fingerprint of their content, and counts."""

    fingerprint: str
    counts: dict[str, dict[str, int]]
    """Pictures by split and emotion."""
    num_new: int
    num_label_conflicts: int
    num_ties: int


def make_splits(catalogue_dir: Path, splits_dir: Path) -> SplitReport:
    """Assign every accepted picture of the catalogue to a split and write the splits' arrays.

    `splits_dir` gets `ledger.csv`, for each split a folder with `pixels.npy` (uint8 (picture, 64, 64)),
    `class_indices.npy` and `content_hashes.npy`, and `manifest.json` last. They are not rewritten when
    nothing changed; the catalogue's table is.

    Raises:
        UnusableDataError: there is no catalogue, another decoder made it, or a class has too few usable pictures; the
            message has the counts.
    """
    if not (catalogue_dir / STORE_NAME).exists():
        raise UnusableDataError(f"There is no {catalogue_dir / STORE_NAME}. Materialize raw_images first.")
    ledger_path = splits_dir / LEDGER_NAME
    # Beside an ingest, pictures would be dealt that nobody has compared, and a ledger's line is for ever.
    with (
        locked(splits_dir / LOCK_NAME),
        locked(catalogue_dir / CATALOGUE_LOCK_NAME),
        Store(catalogue_dir / STORE_NAME) as store,
    ):
        remove_drafts(splits_dir)
        if store.is_outdated():
            raise UnusableDataError(
                "Another version of this code, or of Pillow, has read the photographs, and the service would see them "
                "otherwise. Materialize raw_images first: it reads them anew."
            )
        # An ingest that was killed may have left pictures that nobody compared; a wrong deal would be for ever.
        compare_new_contents(store)
        deal = _deal(store, read_ledger(ledger_path))
        _refuse_too_few(deal, store)
        _append_to_ledger(ledger_path, deal.newcomers)
        publish(store, catalogue_dir, {**deal.splits, **deal.left_out})
        fingerprint = _write_arrays(store, splits_dir, deal)
    reasons = Counter(deal.left_out.values())
    return SplitReport(
        fingerprint=fingerprint,
        counts=_counts(deal),
        num_new=len(deal.newcomers),
        num_label_conflicts=reasons[LABEL_CONFLICT],
        num_ties=reasons[TIES_SPLITS],
    )


@dataclass(frozen=True, slots=True)
class Deal:
    """Who goes where, by content hash."""

    splits: dict[str, str]
    labels: dict[str, str]
    newcomers: dict[str, str]
    left_out: dict[str, str]


def _deal(store: Store, ledger: dict[str, str]) -> Deal:
    labels_by_id = store.labels_by_content()
    hash_of = store.hashes_by_id()
    conflicting = {hash_of[content_id] for content_id in conflicts(store, labels_by_id)}
    labels = {
        hash_of[content_id]: next(iter(names))
        for content_id, names in labels_by_id.items()
        if hash_of[content_id] not in conflicting
    }
    neighbours: dict[str, set[str]] = defaultdict(set)
    for first, second in store.pairs().tolist():
        neighbours[hash_of[first]].add(hash_of[second])
        neighbours[hash_of[second]].add(hash_of[first])
    newcomers, ties = assign(labels, neighbours, ledger)
    known = ledger | newcomers
    splits = {content_hash: known[content_hash] for content_hash in labels if content_hash in known}
    apart = _torn_apart(splits, neighbours)
    splits = {content_hash: split for content_hash, split in splits.items() if content_hash not in apart}
    ties |= apart
    left_out = dict.fromkeys(conflicting, LABEL_CONFLICT) | dict.fromkeys(ties, TIES_SPLITS)
    return Deal(splits, labels, newcomers, left_out)


def assign(
    labels: dict[str, str], neighbours: dict[str, set[str]], ledger: dict[str, str]
) -> tuple[dict[str, str], set[str]]:
    """Choose a split for every picture that the ledger does not know.

    Args:
        labels: the emotion of each usable picture, by content hash.
        neighbours: the near-duplicates of each picture; may name pictures without a label.
        ledger: the splits given before.

    Returns:
        The new assignments, and the pictures left out because they would tie different splits together.
    """
    given = dict(ledger)
    waiting = sorted(content_hash for content_hash in labels if content_hash not in given)
    left_out: set[str] = set()
    _join_relatives(waiting, neighbours, given, left_out)
    counts = Counter((given[content_hash], label) for content_hash, label in labels.items() if content_hash in given)
    groups = _groups([h for h in waiting if h not in given and h not in left_out], neighbours)
    for group in sorted(groups, key=lambda members: hashlib.sha256(_SALT + members[0].encode()).digest()):
        split = _neediest(Counter(labels[member] for member in group), counts)
        for member in group:
            given[member] = split
            counts[split, labels[member]] += 1
    return {content_hash: given[content_hash] for content_hash in waiting if content_hash in given}, left_out


def _join_relatives(
    waiting: list[str], neighbours: dict[str, set[str]], given: dict[str, str], left_out: set[str]
) -> None:
    """Give each newcomer the split of its assigned relatives, over any number of steps; set ties aside."""
    progress = True
    while progress:
        progress = False
        for newcomer in waiting:
            if newcomer in given or newcomer in left_out:
                continue
            splits = {given[other] for other in neighbours.get(newcomer, ()) if other in given}
            if len(splits) == 1:
                given[newcomer] = splits.pop()
                progress = True
            elif splits:
                left_out.add(newcomer)


def _torn_apart(splits: dict[str, str], neighbours: dict[str, set[str]]) -> set[str]:
    """Return what has to go because near-duplicates of it lie in another split; of two, that of the larger split.

    No new picture is dealt so, but another decoder may find two alike that were not.
    """
    return {
        content_hash
        for content_hash, split in splits.items()
        for other in neighbours.get(content_hash, ())
        if other in splits and SPLITS.index(split) < SPLITS.index(splits[other])
    }


def _groups(members: list[str], neighbours: dict[str, set[str]]) -> list[list[str]]:
    """Return the connected components of `members`, each sorted."""
    inside, groups = set(members), []
    for start in members:
        if start not in inside:
            continue
        inside.remove(start)
        group, frontier = [start], [start]
        while frontier:
            reached = neighbours.get(frontier.pop(), set()) & inside
            inside -= reached
            group += reached
            frontier += reached
        groups.append(sorted(group))
    return groups


def _neediest(added: Counter[str], counts: Counter[tuple[str, str]]) -> str:
    """Return the split that, for the classes in `added`, lies furthest below its share."""

    def lack(split: str) -> float:
        return sum(
            number * (SHARES[split] * (sum(counts[other, label] for other in SPLITS) + number) - counts[split, label])
            for label, number in added.items()
        )

    return max(SPLITS, key=lack)


def read_ledger(path: Path) -> dict[str, str]:
    """Return the split of every content ever assigned; a torn last line is ignored."""
    if not path.exists():
        return {}
    lines = (line.split(",") for line in path.read_text().splitlines())
    return {fields[0]: fields[1] for fields in lines if len(fields) == 2 and fields[1] in SPLITS}


def _append_to_ledger(path: Path, newcomers: dict[str, str]) -> None:
    if not newcomers:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.exists() and not path.read_bytes().endswith(b"\n")
    lines = "".join(f"{content_hash},{split}\n" for content_hash, split in sorted(newcomers.items()))
    with path.open("a") as file:
        file.write(("\n" if torn else "") + lines)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def _counts(deal: Deal) -> dict[str, dict[str, int]]:
    pairs = Counter((split, deal.labels[content_hash]) for content_hash, split in deal.splits.items())
    return {split: {emotion: pairs[split, emotion] for emotion in EMOTIONS} for split in SPLITS}


def _refuse_too_few(deal: Deal, store: Store) -> None:
    usable = Counter(deal.labels[content_hash] for content_hash in deal.splits)
    missing = {emotion: usable[emotion] for emotion in EMOTIONS if usable[emotion] < MIN_PICTURES_PER_CLASS}
    if missing:
        found = ", ".join(f"{emotion} {number}" for emotion, number in missing.items())
        raise UnusableDataError(
            f"Too few usable pictures to split: {found}; every emotion needs at least {MIN_PICTURES_PER_CLASS} "
            f"different ones. Add photographs to raw/<Emotion>/.{_common_refusals(store)}"
        )


def _common_refusals(store: Store) -> str:
    """Return why files of `raw/` are not used: a sentence for each of the commonest reasons, or nothing."""
    reasons = Counter(reason for _, _, reason in store.oddities())
    reasons.update(refusal for *_, refusal, _ in store.file_rows() if refusal is not None)
    return "".join(f" {number} not used: {reason}" for reason, number in reasons.most_common(_NUM_REASONS_SHOWN))


def _write_arrays(store: Store, splits_dir: Path, deal: Deal) -> str:
    checksums = store.checksums()
    lines = sorted(f"{h} {deal.labels[h]} {split} {checksums[h]}\n" for h, split in deal.splits.items())
    fingerprint = hashlib.sha256("".join(lines).encode()).hexdigest()
    if not _is_written(splits_dir, fingerprint):
        members = {name: sorted(h for h, chosen in deal.splits.items() if chosen == name) for name in SPLITS}
        write_splits(splits_dir, fingerprint, {name: _split(store, deal, chosen) for name, chosen in members.items()})
    return fingerprint


def write_splits(splits_dir: Path, fingerprint: str, splits: Mapping[str, Split]) -> None:
    """Write splits for `read_split`, the manifest last.

    Args:
        splits_dir: gets a folder for each split.
        fingerprint: what identifies their content.
        splits: by name.
    """
    files: dict[str, str] = {}
    counts: dict[str, dict[str, int]] = {}
    for name, split in splits.items():
        hashes = np.array(split.content_hashes, dtype="S64")
        arrays: tuple[npt.NDArray[Any], ...] = (split.pixels, split.class_indices, hashes)
        for array_name, array in zip(_ARRAYS, arrays, strict=True):
            path = splits_dir / name / f"{array_name}.npy"
            write_atomically(path, _npy(array))
            files[f"{name}/{array_name}.npy"] = sha256_of(path)
        numbers = np.bincount(split.class_indices, minlength=len(EMOTIONS)).tolist()
        counts[name] = dict(zip(EMOTIONS, numbers, strict=True))
    write_json(
        splits_dir / MANIFEST_NAME,
        {
            "schema_version": 1,
            "fingerprint": fingerprint,
            "emotions": EMOTIONS,
            "image_size_px": IMAGE_SIZE_PX,
            "shares": SHARES,
            "counts": counts,
            "files": files,
        },
    )


def _is_written(splits_dir: Path, fingerprint: str) -> bool:
    try:
        manifest = read_manifest(splits_dir)
        return manifest["fingerprint"] == fingerprint and all(
            sha256_of(splits_dir / name) == digest for name, digest in manifest["files"].items()
        )
    except (UnusableDataError, OSError, KeyError, AttributeError):
        return False


def _split(store: Store, deal: Deal, members: list[str]) -> Split:
    class_indices = np.array([EMOTIONS.index(deal.labels[member]) for member in members], dtype=np.int64)
    return Split(store.read_pixels(members), class_indices, tuple(members))


def _npy(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def read_manifest(splits_dir: Path) -> dict[str, Any]:
    """Return the splits' manifest.

    Raises:
        UnusableDataError: there are no splits yet, or they were written by another schema.
    """
    path = splits_dir / MANIFEST_NAME
    try:
        manifest: dict[str, Any] = _json_object(path)
    except FileNotFoundError as error:
        raise UnusableDataError(f"There is no {path}. Materialize greyscale_splits first.") from error
    if manifest.get("schema_version") != 1 or manifest.get("emotions") != list(EMOTIONS):
        raise UnusableDataError(f"{path} is of another schema. Materialize greyscale_splits anew.")
    return manifest


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise UnusableDataError(f"{path} is damaged ({error}). Materialize greyscale_splits anew.") from error
    if not isinstance(value, dict):
        raise UnusableDataError(f"{path} holds no JSON object. Materialize greyscale_splits anew.")
    return value


def read_split(splits_dir: Path, split: str) -> Split:
    """Read one split, after checking its files against the manifest.

    Raises:
        UnusableDataError: there are no splits, or a file is not the one that the manifest names.
    """
    manifest = read_manifest(splits_dir)
    arrays = {}
    for name in _ARRAYS:
        path = splits_dir / split / f"{name}.npy"
        try:
            is_right = sha256_of(path) == manifest["files"][f"{split}/{name}.npy"]
        except (FileNotFoundError, KeyError, TypeError):
            is_right = False
        if not is_right:
            raise UnusableDataError(
                f"{path} is not the file that the manifest names: it is missing, was altered, or is being rewritten. "
                "Materialize greyscale_splits again."
            )
        arrays[name] = np.load(path, allow_pickle=False)
    hashes = tuple(value.decode() for value in arrays["content_hashes"].tolist())
    return Split(arrays["pixels"], arrays["class_indices"], hashes)


def leaking_pairs(splits: Iterable[Split], limit: int = 10) -> list[tuple[str, str]]:
    """Compare every picture of each split with every picture of the others, from the stored pixels.

    Returns:
        Up to `limit` pairs of content hashes that are near-duplicates across splits; empty when none leaks.
    """
    parts = list(splits)
    hashes = [content_hash for part in parts for content_hash in part.content_hashes]
    owner = np.concatenate([np.full(len(part.pixels), index) for index, part in enumerate(parts)])
    descriptors = np.concatenate([describe(chunk) for part in parts for chunk in _chunks(part.pixels)])
    pairs = similar_pairs(descriptors, np.zeros(len(descriptors), dtype=np.bool_))
    crossing = pairs[owner[pairs[:, 0]] != owner[pairs[:, 1]]]
    return [(hashes[first], hashes[second]) for first, second in crossing[:limit].tolist()]


def _chunks(pixels: Pixels) -> list[Pixels]:
    return [pixels[start : start + 4096] for start in range(0, len(pixels), 4096)]
