"""Assign every accepted image to train, val or test, and write the splits.

The ledger, an append-only text file, remembers the split of every image by its content.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emotion_assets.core.classes import ClassSet, read_classes
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.files import atomic_file, locked, remove_temporary_files, sync_folder
from emotion_assets.core.images import Pixels
from emotion_assets.core.layout import DataPaths
from emotion_assets.core.summary import Summary
from emotion_assets.steps.ingest.catalogue import LOCK_NAME as CATALOGUE_LOCK_NAME
from emotion_assets.steps.ingest.export import path_text
from emotion_assets.steps.ingest.report import unused_files
from emotion_assets.steps.ingest.store import STORE_NAME, Store
from emotion_assets.steps.ingest.subjects import find_subjects
from emotion_assets.steps.report_images import contact_sheet
from emotion_assets.steps.splits.assignment import (
    SPLITS,
    ExclusionReason,
    SplitAssignment,
    assign_splits,
    is_subject_key,
)
from emotion_assets.steps.splits.splits import (
    ASSIGNMENTS_NAME,
    LOCK_NAME,
    SplitArrays,
    is_written,
    read_split,
    write_arrays,
)

LEDGER_NAME: Final = "ledger.csv"
MIN_IMAGES_PER_CLASS: Final = 10

_ASSIGNMENTS_SCHEMA: Final = pa.schema(
    [
        *((name, pa.string()) for name in ("content_hash", "label", "split", "excluded_because", "subject")),
        ("is_divided", pa.bool_()),
    ]
)
_NUM_FACES_SHOWN: Final = 36
_CHUNK_IMAGES: Final = 4096


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
        fingerprint = _write_changed_arrays(store, paths.splits, assignment, classes)
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


def _write_changed_arrays(store: Store, splits_dir: Path, assignment: SplitAssignment, classes: ClassSet) -> str:
    """Write all arrays unless they are there already; return the fingerprint of the splits."""
    labels, index_of = assignment.labels, {name: index for index, name in enumerate(classes.names)}
    checksums = {content_hash: checksum for content_hash, _, checksum in store.labelled_contents()}
    lines = sorted(f"{h} {labels[h]} {split} {checksums[h]}\n" for h, split in assignment.splits.items())
    fingerprint = hashlib.sha256("".join([*lines, *classes.names]).encode()).hexdigest()
    if not is_written(splits_dir, fingerprint, classes.titles):
        parts: dict[str, SplitArrays] = {}
        for name in SPLITS:
            hashes = sorted(h for h, split in assignment.splits.items() if split == name)
            indices = np.array([index_of[labels[h]] for h in hashes], dtype=np.int64)
            parts[name] = SplitArrays(_read_chunks(store, hashes), indices, hashes)
        write_arrays(splits_dir, fingerprint, classes.names, classes.titles, parts)
    return fingerprint


def _read_chunks(store: Store, hashes: Sequence[str]) -> Iterator[Pixels]:
    for start in range(0, len(hashes), _CHUNK_IMAGES):
        yield store.read_pixels(hashes[start : start + _CHUNK_IMAGES])
