"""The files of the splits: arrays of images and labels, a manifest with their hashes, and the table of assignments."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from emotion_assets.core.bundle import TRAIN_IMAGES_NAME
from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.files import atomic_file, file_sha256, write_json
from emotion_assets.core.images import IMAGE_SIZE_PX, Pixels
from emotion_assets.steps.splits.assignment import SPLIT_FRACTIONS

ASSIGNMENTS_NAME: Final = "assignments.parquet"
LOCK_NAME: Final = ".lock"
MANIFEST_NAME: Final = "manifest.json"

_ARRAYS: Final = ("pixels", "class_indices", "content_hashes")
_SCHEMA_VERSION: Final = 2


@dataclass(frozen=True, slots=True)
class Split:
    """The images of one split, in the order of their content hashes."""

    pixels: Pixels
    """uint8 (image, row, column), 0..255; read from disk where they are used, so they may be larger than memory."""
    class_indices: npt.NDArray[np.int64]
    """int64 (image,), positions in `emotions`."""
    content_hashes: tuple[str, ...]
    emotions: tuple[str, ...] = EMOTIONS
    """The classes, in order."""


class SplitArrays(NamedTuple):
    """The arrays of a split as they are written, when the images may not fit in memory."""

    chunks: Iterable[Pixels]
    """All images, some at a time: uint8 (image, row, column)."""
    class_indices: npt.NDArray[np.int64]
    """int64 (image,)."""
    content_hashes: Sequence[str]


def write_splits(splits_dir: Path, fingerprint: str, splits: Mapping[str, Split]) -> None:
    """Write at least one split by its name for `read_split`; `fingerprint` identifies their content."""
    emotions = next(iter(splits.values())).emotions
    parts = {name: SplitArrays([each.pixels], each.class_indices, each.content_hashes) for name, each in splits.items()}
    write_arrays(splits_dir, fingerprint, emotions, emotions, parts)


def write_arrays(
    splits_dir: Path, fingerprint: str, emotions: Sequence[str], titles: Sequence[str], parts: Mapping[str, SplitArrays]
) -> None:
    """Write the arrays of each split, and the manifest last."""
    files: dict[str, str] = {}
    counts: dict[str, dict[str, int]] = {}
    for name, part in parts.items():
        files |= _write_split(splits_dir, name, part)
        numbers = np.bincount(part.class_indices, minlength=len(emotions)).tolist()
        counts[name] = dict(zip(emotions, numbers, strict=True))
    manifest = {
        "schema_version": _SCHEMA_VERSION,
        "fingerprint": fingerprint,
        "emotions": emotions,
        "titles": titles,
        "image_size_px": IMAGE_SIZE_PX,
        "fractions": SPLIT_FRACTIONS,
        "counts": counts,
        "files": files,
    }
    write_json(splits_dir / MANIFEST_NAME, manifest)


def _write_split(splits_dir: Path, name: str, part: SplitArrays) -> dict[str, str]:
    """Write the arrays of one split; return each file's hash by its path."""
    folder = splits_dir / name
    with atomic_file(folder / "pixels.npy") as file:
        shape = (len(part.content_hashes), IMAGE_SIZE_PX, IMAGE_SIZE_PX)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for chunk in part.chunks:
            file.write(np.ascontiguousarray(chunk).data)
    hashes = np.array(part.content_hashes, dtype="S64")
    for array_name, array in (("class_indices", part.class_indices), ("content_hashes", hashes)):
        with atomic_file(folder / f"{array_name}.npy") as file:
            np.save(file, array, allow_pickle=False)
    return {f"{name}/{array_name}.npy": file_sha256(folder / f"{array_name}.npy") for array_name in _ARRAYS}


def is_written(splits_dir: Path, fingerprint: str, titles: Sequence[str]) -> bool:
    """Return whether these splits are there, with these titles of their classes, and undamaged."""
    try:
        manifest = read_manifest(splits_dir)
        is_current = (manifest["fingerprint"], manifest["titles"]) == (fingerprint, list(titles))
        return is_current and all(
            file_sha256(splits_dir / name) == digest for name, digest in manifest["files"].items()
        )
    except (UnusableDataError, OSError, KeyError, AttributeError):
        return False


def read_manifest(splits_dir: Path) -> dict[str, Any]:
    """Return the splits' manifest.

    Raises:
        UnusableDataError: there are no splits yet, or the manifest is damaged or of another schema.
    """
    path = splits_dir / MANIFEST_NAME
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        is_known = (manifest["schema_version"], manifest["image_size_px"]) == (_SCHEMA_VERSION, IMAGE_SIZE_PX)
        is_known = is_known and len(manifest["emotions"]) > 1
    except FileNotFoundError as error:
        raise UnusableDataError(f"There is no {path}. Materialize greyscale_splits first.") from error
    except (ValueError, TypeError, LookupError) as error:
        raise UnusableDataError(f"{path} is damaged ({error!r}). Materialize greyscale_splits again.") from error
    if not is_known:
        raise UnusableDataError(f"{path} has another schema or image size. Materialize greyscale_splits again.")
    return manifest


def read_split(splits_dir: Path, name: str) -> Split:
    """Read one split, after checking its files' hashes.

    Raises:
        UnusableDataError: there are no splits, or a file is missing or altered.
    """
    manifest = read_manifest(splits_dir)
    arrays = {}
    for array_name in _ARRAYS:
        path = splits_dir / name / f"{array_name}.npy"
        try:
            is_intact = file_sha256(path) == manifest["files"][f"{name}/{array_name}.npy"]
        except (FileNotFoundError, KeyError, TypeError):
            is_intact = False
        if not is_intact:
            raise UnusableDataError(
                f"{path} is not the file that the manifest names: it is missing, was altered, or is being rewritten. "
                "Materialize greyscale_splits again."
            )
        try:
            # Mapped, not read; `c` because torch warns about read-only arrays.
            loaded = np.load(path, mmap_mode="c" if array_name == "pixels" else None, allow_pickle=False)
            arrays[array_name] = np.asarray(loaded)
        except ValueError as error:
            raise UnusableDataError(f"{path} is not an array ({error}). Materialize greyscale_splits again.") from error
    hashes = tuple(value.decode() for value in arrays["content_hashes"].tolist())
    return Split(arrays["pixels"], arrays["class_indices"], hashes, tuple(manifest["emotions"]))


def hash_starts(content_hashes: Iterable[str]) -> npt.NDArray[np.uint64]:
    """Return the first 64 bits of each content hash, uint64 (image,)."""
    return np.array([int(content_hash[:16], 16) for content_hash in content_hashes], dtype=np.uint64)


def was_trained_on(bundle_dir: Path, content_hashes: Iterable[str]) -> npt.NDArray[np.bool_]:
    """Return which images a model was trained on, bool (image,)."""
    return np.isin(hash_starts(content_hashes), np.load(bundle_dir / TRAIN_IMAGES_NAME))


def read_assignments(splits_dir: Path) -> pd.DataFrame:
    """Return one row for each accepted image: content_hash, label, split, excluded_because, subject and is_divided.

    An image is in a split or excluded for a reason, so one of the two is null. The label is null if it has several, the
    subject if it is not known.

    Raises:
        UnusableDataError: there is no such table, or it is damaged.
    """
    path = splits_dir / ASSIGNMENTS_NAME
    try:
        return pd.read_parquet(path)
    except FileNotFoundError as error:
        raise UnusableDataError(f"There is no {path}. Materialize greyscale_splits first.") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise UnusableDataError(f"{path} is damaged ({error}). Materialize greyscale_splits again.") from error
