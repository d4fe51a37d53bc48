"""Deal images into train, val and test, and write and read the splits' arrays.

The ledger, an append-only text file, remembers the split of every image by its content; `deal` decides on new ones.
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

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.files import (
    file_sha256,
    locked,
    remove_temporary_files,
    sync_folder,
    write_atomically,
    write_json,
)
from emotion_assets.core.images import IMAGE_SIZE_PX, Pixels
from emotion_assets.steps.ingest.catalogue import LOCK_NAME as CATALOGUE_LOCK_NAME
from emotion_assets.steps.ingest.catalogue import STORE_NAME
from emotion_assets.steps.ingest.export import export_catalogue
from emotion_assets.steps.ingest.near_duplicates import compare_new_contents, compute_descriptors, similar_pairs
from emotion_assets.steps.ingest.store import Store
from emotion_assets.steps.splits.assignment import (
    LABEL_CONFLICT,
    SPANS_SPLITS,
    SPLIT_FRACTIONS,
    SPLITS,
    SplitAssignment,
    assign_splits,
)

LEDGER_NAME: Final = "ledger.csv"
LOCK_NAME: Final = ".lock"
MANIFEST_NAME: Final = "manifest.json"
MIN_IMAGES_PER_CLASS: Final = 10

_ARRAYS: Final = ("pixels", "class_indices", "content_hashes")
_NUM_REASONS_SHOWN: Final = 2


@dataclass(frozen=True, slots=True)
class Split:
    """The images of one split, in the order of their content hashes."""

    pixels: Pixels
    """uint8 (image, row, column), 0..255."""
    class_indices: npt.NDArray[np.int64]
    """int64 (image,), positions in EMOTIONS."""
    content_hashes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SplitReport:
    """The splits as they were written: a fingerprint of their content, and counts."""

    fingerprint: str
    counts: dict[str, dict[str, int]]
    """Images by split and emotion."""
    num_new: int
    num_label_conflicts: int
    num_spanning: int


def make_splits(catalogue_dir: Path, splits_dir: Path) -> SplitReport:
    """Assign every accepted image of the catalogue to a split and write the splits' arrays.

    `splits_dir` gets `ledger.csv`, for each split a folder with `pixels.npy` (uint8 (image, 64, 64)),
    `class_indices.npy` and `content_hashes.npy`, and `manifest.json` last. They are not rewritten when
    nothing changed; the catalogue's table is.

    Raises:
        UnusableDataError: there is no catalogue, another decoder made it, or a class has too few usable images; the
            message has the counts.
    """
    if not (catalogue_dir / STORE_NAME).exists():
        raise UnusableDataError(f"There is no {catalogue_dir / STORE_NAME}. Materialize raw_images first.")
    ledger_path = splits_dir / LEDGER_NAME
    # Beside an ingest, images would be dealt that nobody has compared, and a ledger's line is permanently.
    with (
        locked(splits_dir / LOCK_NAME),
        locked(catalogue_dir / CATALOGUE_LOCK_NAME),
        Store(catalogue_dir / STORE_NAME) as store,
    ):
        remove_temporary_files(splits_dir)
        if store.has_outdated_decoder():
            raise UnusableDataError(
                "Another version of this code, or of Pillow, has read the images, and the service would see them "
                "otherwise. Materialize raw_images first: it reads them again."
            )
        # An ingest that was killed may have left images that nobody compared; a wrong deal would be permanently.
        compare_new_contents(store)
        deal = assign_splits(store, read_ledger(ledger_path))
        _require_min_images(deal, store)
        _append_to_ledger(ledger_path, deal.unassigned)
        export_catalogue(store, catalogue_dir, {**deal.splits, **deal.excluded})
        fingerprint = _write_arrays(store, splits_dir, deal)
    reasons = Counter(deal.excluded.values())
    return SplitReport(
        fingerprint=fingerprint,
        counts=_counts(deal),
        num_new=len(deal.unassigned),
        num_label_conflicts=reasons[LABEL_CONFLICT],
        num_spanning=reasons[SPANS_SPLITS],
    )


def read_ledger(path: Path) -> dict[str, str]:
    """Return the split of every content ever assigned; a torn last line is ignored."""
    if not path.exists():
        return {}
    lines = (line.split(",") for line in path.read_text().splitlines())
    return {fields[0]: fields[1] for fields in lines if len(fields) == 2 and fields[1] in SPLITS}


def _append_to_ledger(path: Path, unassigned: dict[str, str]) -> None:
    if not unassigned:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.exists() and not path.read_bytes().endswith(b"\n")
    lines = "".join(f"{content_hash},{split}\n" for content_hash, split in sorted(unassigned.items()))
    with path.open("a") as file:
        file.write(("\n" if torn else "") + lines)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def _counts(deal: SplitAssignment) -> dict[str, dict[str, int]]:
    pairs = Counter((split, deal.labels[content_hash]) for content_hash, split in deal.splits.items())
    return {split: {emotion: pairs[split, emotion] for emotion in EMOTIONS} for split in SPLITS}


def _require_min_images(deal: SplitAssignment, store: Store) -> None:
    usable = Counter(deal.labels[content_hash] for content_hash in deal.splits)
    missing = {emotion: usable[emotion] for emotion in EMOTIONS if usable[emotion] < MIN_IMAGES_PER_CLASS}
    if missing:
        found = ", ".join(f"{emotion} {number}" for emotion, number in missing.items())
        raise UnusableDataError(
            f"Too few usable images to split: {found}; every emotion needs at least {MIN_IMAGES_PER_CLASS} "
            f"different ones. Add images to raw/<Emotion>/.{_common_rejections(store)}"
        )


def _common_rejections(store: Store) -> str:
    """Return why files of `raw/` are not used: a sentence for each of the commonest reasons, or nothing."""
    reasons = Counter(reason for _, _, reason in store.skipped_files())
    reasons.update(rejection for *_, rejection, _ in store.file_rows() if rejection is not None)
    return "".join(f" {number} not used: {reason}" for reason, number in reasons.most_common(_NUM_REASONS_SHOWN))


def _write_arrays(store: Store, splits_dir: Path, deal: SplitAssignment) -> str:
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
            files[f"{name}/{array_name}.npy"] = file_sha256(path)
        numbers = np.bincount(split.class_indices, minlength=len(EMOTIONS)).tolist()
        counts[name] = dict(zip(EMOTIONS, numbers, strict=True))
    write_json(
        splits_dir / MANIFEST_NAME,
        {
            "schema_version": 1,
            "fingerprint": fingerprint,
            "emotions": EMOTIONS,
            "image_size_px": IMAGE_SIZE_PX,
            "shares": SPLIT_FRACTIONS,
            "counts": counts,
            "files": files,
        },
    )


def _is_written(splits_dir: Path, fingerprint: str) -> bool:
    try:
        manifest = read_manifest(splits_dir)
        return manifest["fingerprint"] == fingerprint and all(
            file_sha256(splits_dir / name) == digest for name, digest in manifest["files"].items()
        )
    except (UnusableDataError, OSError, KeyError, AttributeError):
        return False


def _split(store: Store, deal: SplitAssignment, members: list[str]) -> Split:
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
        raise UnusableDataError(f"{path} is of another schema. Materialize greyscale_splits again.")
    return manifest


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise UnusableDataError(f"{path} is damaged ({error}). Materialize greyscale_splits again.") from error
    if not isinstance(value, dict):
        raise UnusableDataError(f"{path} holds no JSON object. Materialize greyscale_splits again.")
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
            is_right = file_sha256(path) == manifest["files"][f"{split}/{name}.npy"]
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
    """Compare every image of each split with every image of the others, from the stored pixels.

    Returns:
        Up to `limit` pairs of content hashes that are near-duplicates across splits; empty when none leaks.
    """
    parts = list(splits)
    hashes = [content_hash for part in parts for content_hash in part.content_hashes]
    owner = np.concatenate([np.full(len(part.pixels), index) for index, part in enumerate(parts)])
    descriptors = np.concatenate([compute_descriptors(chunk) for part in parts for chunk in _chunks(part.pixels)])
    pairs = similar_pairs(descriptors, np.zeros(len(descriptors), dtype=np.bool_))
    crossing = pairs[owner[pairs[:, 0]] != owner[pairs[:, 1]]]
    return [(hashes[first], hashes[second]) for first, second in crossing[:limit].tolist()]


def _chunks(pixels: Pixels) -> list[Pixels]:
    return [pixels[start : start + 4096] for start in range(0, len(pixels), 4096)]
