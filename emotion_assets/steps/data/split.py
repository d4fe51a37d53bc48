"""Deal pictures into train, val and test, and write and read the splits' arrays.

The ledger, an append-only text file, remembers the split of every picture by its content; `deal` decides on new ones.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import Counter
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
from emotion_assets.steps.data.deal import LABEL_CONFLICT, SHARES, SPLITS, TIES_SPLITS, Deal, deal_out
from emotion_assets.steps.data.near_duplicates import compare_new_contents, describe, similar_pairs
from emotion_assets.steps.data.store import Store
from emotion_assets.steps.data.table import publish

LEDGER_NAME: Final = "ledger.csv"
LOCK_NAME: Final = ".lock"
MANIFEST_NAME: Final = "manifest.json"
MIN_PICTURES_PER_CLASS: Final = 10

_ARRAYS: Final = ("pixels", "class_indices", "content_hashes")
_NUM_REASONS_SHOWN: Final = 2


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
        deal = deal_out(store, read_ledger(ledger_path))
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
