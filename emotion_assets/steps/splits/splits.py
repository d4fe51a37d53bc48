"""Split images into train, val and test, and write and read the splits.

The ledger, an append-only text file, remembers the split of every image by its content.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from emotion_assets.core.classes import EMOTIONS, ClassSet, read_classes
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.files import (
    atomic_file,
    file_sha256,
    locked,
    remove_temporary_files,
    sync_folder,
    write_json,
)
from emotion_assets.core.images import IMAGE_SIZE_PX, Pixels
from emotion_assets.core.layout import DataPaths
from emotion_assets.core.summary import Summary
from emotion_assets.steps.ingest.catalogue import LOCK_NAME as CATALOGUE_LOCK_NAME
from emotion_assets.steps.ingest.export import path_text
from emotion_assets.steps.ingest.report import unused_files
from emotion_assets.steps.ingest.store import STORE_NAME, Store
from emotion_assets.steps.ingest.subjects import find_subjects
from emotion_assets.steps.report_images import contact_sheet
from emotion_assets.steps.splits.assignment import (
    SPLIT_FRACTIONS,
    SPLITS,
    ExclusionReason,
    SplitAssignment,
    assign_splits,
    is_subject_key,
)

LEDGER_NAME: Final = "ledger.csv"
ASSIGNMENTS_NAME: Final = "assignments.parquet"
LOCK_NAME: Final = ".lock"
MANIFEST_NAME: Final = "manifest.json"
MIN_IMAGES_PER_CLASS: Final = 10

_ARRAYS: Final = ("pixels", "class_indices", "content_hashes")
_ASSIGNMENTS_SCHEMA: Final = pa.schema(
    [
        *((name, pa.string()) for name in ("content_hash", "label", "split", "excluded_because", "subject")),
        ("is_divided", pa.bool_()),
    ]
)
_SCHEMA_VERSION: Final = 2
_NUM_FACES_SHOWN: Final = 36
_CHUNK_IMAGES: Final = 4096


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


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitReport:
    """Counts of the splits as they were written."""

    splits_dir: Path
    fingerprint: str
    """Changes with the images of the splits, their pixels and labels."""
    counts: dict[str, dict[str, int]]
    """Images by split and emotion."""
    num_new: int
    num_label_conflicts: int
    num_spanning_splits: int
    num_divided: int
    """Images whose group was divided, because a class has fewer than three groups."""
    num_subjects: int

    @property
    def holds_every_class(self) -> bool:
        """Whether every split has an image of every class."""
        return all(all(counts.values()) for counts in self.counts.values())

    def summary(self) -> Summary:
        """Summarize the splits, with a sample of the train split's faces."""
        train = read_split(self.splits_dir, "train")
        order = train.class_indices.argsort(kind="stable")
        step = max(1, len(order) // _NUM_FACES_SHOWN)
        return Summary(
            values={
                **{f"num_{name}": sum(self.counts[name].values()) for name in SPLITS},
                "num_new": self.num_new,
                "num_label_conflicts": self.num_label_conflicts,
                "num_spanning_splits": self.num_spanning_splits,
                "num_divided": self.num_divided,
                "num_subjects": self.num_subjects,
                "fingerprint": self.fingerprint,
            },
            tables={"counts": [{"split": name, **self.counts[name]} for name in SPLITS]},
            images={"train_faces": contact_sheet(train.pixels[order[::step][:_NUM_FACES_SHOWN]])},
            files={"splits": self.splits_dir},
        )


def make_splits(paths: DataPaths) -> SplitReport:
    """Assign every accepted image of the catalogue to a split and write the splits.

    Writes `ledger.csv`, `assignments.parquet`, for each split a folder with `pixels.npy` (uint8 (image, 64, 64)),
    `class_indices.npy` and `content_hashes.npy`, and `manifest.json` last. Arrays that did not change are not
    rewritten. The catalogue is only read.

    Raises:
        UnusableDataError: there is no complete catalogue, another decoder made it, a class has too few usable images,
            or `classes.yaml` or `subjects.csv` is wrong.
    """
    store_path = paths.catalogue / STORE_NAME
    if not store_path.exists():
        raise UnusableDataError(f"There is no {store_path}. Materialize raw_images first.")
    ledger_path = paths.splits / LEDGER_NAME
    # An ingest that runs now has not compared all images yet, and an assignment is permanent.
    with (
        locked(paths.splits / LOCK_NAME),
        locked(paths.catalogue / CATALOGUE_LOCK_NAME),
        Store(store_path) as store,
    ):
        remove_temporary_files(paths.splits)
        _require_complete(store)
        classes = read_classes(paths.classes)
        _require_known_labels(store, classes)
        assignment = assign_splits(store, read_ledger(ledger_path), find_subjects(store, paths).by_content)
        counts = _count(assignment, classes)
        _require_min_images(counts, assignment, store, paths, classes)
        _append_to_ledger(ledger_path, assignment.new_entries)
        _write_assignments(paths.splits, assignment)
        fingerprint = _write_arrays(store, paths.splits, assignment, classes)
    reasons = Counter(assignment.excluded.values())
    return SplitReport(
        splits_dir=paths.splits,
        fingerprint=fingerprint,
        counts=counts,
        num_new=sum(not is_subject_key(name) for name in assignment.new_entries),
        num_label_conflicts=reasons[ExclusionReason.LABEL_CONFLICT],
        num_spanning_splits=reasons[ExclusionReason.SPANS_SPLITS],
        num_divided=len(assignment.divided),
        num_subjects=len({assignment.subjects[name] for name in assignment.splits if name in assignment.subjects}),
    )


def _require_complete(store: Store) -> None:
    if store.has_outdated_decoder():
        raise UnusableDataError(
            "The images were read by another version of this code or of Pillow, so the service would see other pixels. "
            "Materialize raw_images first: it reads them again."
        )
    if store.published_fingerprint() is None or store.has_uncompared():
        raise UnusableDataError(
            "The last ingest was interrupted, so the catalogue is incomplete. Materialize raw_images first."
        )


def _require_known_labels(store: Store, classes: ClassSet) -> None:
    unknown = store.labels() - set(classes.names)
    if unknown:
        raise UnusableDataError(
            f"The catalogue has the class {min(unknown)}, which classes.yaml does not list ({classes}). Materialize "
            "raw_images first: it reads the folders again."
        )


def read_ledger(path: Path) -> dict[str, str]:
    """Return the split of every content and subject ever assigned; a torn last line is ignored."""
    if not path.exists():
        return {}
    lines = (line.split(",") for line in path.read_text().splitlines())
    return {fields[0]: fields[1] for fields in lines if len(fields) == 2 and fields[1] in SPLITS}


def _append_to_ledger(path: Path, new_entries: dict[str, str]) -> None:
    if not new_entries:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    is_torn = path.exists() and not path.read_bytes().endswith(b"\n")
    lines = "".join(f"{content_hash},{split}\n" for content_hash, split in sorted(new_entries.items()))
    with path.open("a") as file:
        file.write(("\n" if is_torn else "") + lines)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def _count(assignment: SplitAssignment, classes: ClassSet) -> dict[str, dict[str, int]]:
    pairs = Counter((split, assignment.labels[content_hash]) for content_hash, split in assignment.splits.items())
    return {split: {emotion: pairs[split, emotion] for emotion in classes.names} for split in SPLITS}


def _require_min_images(
    counts: dict[str, dict[str, int]], assignment: SplitAssignment, store: Store, paths: DataPaths, classes: ClassSet
) -> None:
    usable = {emotion: sum(counts[split][emotion] for split in SPLITS) for emotion in classes.names}
    found = ", ".join(f"{emotion} {number}" for emotion, number in usable.items() if number < MIN_IMAGES_PER_CLASS)
    if found:
        reasons = unused_files(store) + _excluded_images(store, assignment)
        listed = "".join(f"\n- {reason}" for reason in reasons)
        raise UnusableDataError(
            f"Too few usable images to split: {found}; every class needs at least {MIN_IMAGES_PER_CLASS} different "
            f"ones. Add images to {paths.raw_source}/<Class>/." + (f" What was not used:{listed}" if listed else "")
        )


_ADVICE: Final = {
    ExclusionReason.LABEL_CONFLICT: (
        "The same picture, or a near-duplicate, has another label. Keep the right one; if these are frames of one "
        "person in several expressions, put them below a folder such as subject_1, or name the subject in subjects.csv."
    ),
    ExclusionReason.SPANS_SPLITS: "A near-duplicate, or another image of its subject, is already in another split.",
}


def _excluded_images(store: Store, assignment: SplitAssignment) -> list[str]:
    id_of = {content_hash: content_id for content_id, content_hash in store.hashes_by_id().items()}
    examples = {reason: content_hash for content_hash, reason in sorted(assignment.excluded.items(), reverse=True)}
    return [
        f"{number:,} with {reason}, such as raw/{path_text(store.find_path(id_of[examples[reason]]))}: "
        f"{_ADVICE[reason]}"
        for reason, number in Counter(assignment.excluded.values()).most_common()
    ]


def _write_assignments(splits_dir: Path, assignment: SplitAssignment) -> None:
    by_hash = (assignment.labels, assignment.splits, assignment.excluded, assignment.subjects)
    hashes = sorted(assignment.splits.keys() | assignment.excluded.keys())
    columns = [hashes, *([values.get(content_hash) for content_hash in hashes] for values in by_hash)]
    columns.append([content_hash in assignment.divided for content_hash in hashes])
    with atomic_file(splits_dir / ASSIGNMENTS_NAME) as file:
        pq.write_table(pa.table(columns, schema=_ASSIGNMENTS_SCHEMA), file)


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


def _write_arrays(store: Store, splits_dir: Path, assignment: SplitAssignment, classes: ClassSet) -> str:
    labels, index_of = assignment.labels, {name: index for index, name in enumerate(classes.names)}
    checksums = {content_hash: checksum for content_hash, _, checksum in store.labelled_contents()}
    lines = sorted(f"{h} {labels[h]} {split} {checksums[h]}\n" for h, split in assignment.splits.items())
    fingerprint = hashlib.sha256("".join([*lines, *classes.names]).encode()).hexdigest()
    if not _is_written(splits_dir, fingerprint, classes):
        parts: dict[str, _Part] = {}
        for name in SPLITS:
            hashes = sorted(h for h, split in assignment.splits.items() if split == name)
            indices = np.array([index_of[labels[h]] for h in hashes], dtype=np.int64)
            parts[name] = _Part(_read_chunks(store, hashes), indices, hashes)
        _write(splits_dir, fingerprint, classes.names, classes.titles, parts)
    return fingerprint


def _read_chunks(store: Store, hashes: Sequence[str]) -> Iterator[Pixels]:
    for start in range(0, len(hashes), _CHUNK_IMAGES):
        yield store.read_pixels(hashes[start : start + _CHUNK_IMAGES])


def write_splits(splits_dir: Path, fingerprint: str, splits: Mapping[str, Split]) -> None:
    """Write at least one split by its name for `read_split`; `fingerprint` identifies their content."""
    emotions = next(iter(splits.values())).emotions
    parts = {name: _Part([each.pixels], each.class_indices, each.content_hashes) for name, each in splits.items()}
    _write(splits_dir, fingerprint, emotions, emotions, parts)


class _Part(NamedTuple):
    """What is written of a split."""

    chunks: Iterable[Pixels]
    """All images, a few thousand at a time."""
    class_indices: npt.NDArray[np.int64]
    content_hashes: Sequence[str]


def _write(
    splits_dir: Path, fingerprint: str, emotions: Sequence[str], titles: Sequence[str], parts: Mapping[str, _Part]
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


def _write_split(splits_dir: Path, name: str, part: _Part) -> dict[str, str]:
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


def _is_written(splits_dir: Path, fingerprint: str, classes: ClassSet) -> bool:
    try:
        manifest = read_manifest(splits_dir)
        is_current = (manifest["fingerprint"], manifest["titles"]) == (fingerprint, list(classes.titles))
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
        is_known = manifest["schema_version"] == _SCHEMA_VERSION and len(manifest["emotions"]) > 1
    except FileNotFoundError as error:
        raise UnusableDataError(f"There is no {path}. Materialize greyscale_splits first.") from error
    except (ValueError, TypeError, LookupError) as error:
        raise UnusableDataError(f"{path} is damaged ({error!r}). Materialize greyscale_splits again.") from error
    if not is_known:
        raise UnusableDataError(f"{path} has another schema. Materialize greyscale_splits again.")
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
