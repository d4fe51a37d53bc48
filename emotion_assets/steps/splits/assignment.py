"""Assign images to splits, so that no image is ever in two of them.

An assigned image keeps its split; near-duplicates share one, and so do all images of a subject. New groups of such
images are assigned in the order of a content hash, each to the split furthest below its target for that class. The
result does not depend on file names or order, and the split fractions are exact up to the size of one group.

Three splits need three groups of every class. Where a class has fewer, for example in the recording of one person, its
groups are divided, and the scores say nothing about other people; a check says so. Once there are enough groups, those
that were divided are assigned as a whole.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from emotion_assets.steps.ingest.conflicts import Subjects, resolve_labels
from emotion_assets.steps.ingest.near_duplicates import component_labels
from emotion_assets.steps.ingest.store import Store

SPLITS: Final = ("train", "val", "test")
SPLIT_FRACTIONS: Final = {"train": 0.8, "val": 0.1, "test": 0.1}

# Changing it would move every image when a ledger is rebuilt.
_SALT: Final = b"emotion-splits-1"
_SUBJECT: Final = "subject-"
_DIVIDED: Final = "divided-"


class ExclusionReason(StrEnum):
    """Why an accepted image is in no split."""

    LABEL_CONFLICT = "label_conflict"
    """It has two labels, by itself or together with a near-duplicate."""
    SPANS_SPLITS = "spans_several_splits"
    """Its near-duplicates or the other images of its subject are in another split."""


@dataclass(frozen=True, slots=True)
class SplitAssignment:
    """The splits of all usable images, by content hash."""

    splits: dict[str, str]
    labels: dict[str, str]
    """Of every accepted image that has only one."""
    new_entries: dict[str, str]
    """The entries, of images and of subjects, that the ledger does not have yet."""
    excluded: dict[str, ExclusionReason]
    """Accepted images that are in no split."""
    divided: set[str]
    """Images whose group was divided, because their class has too few groups."""
    subjects: dict[str, str]
    """Of the images that have one; two joined by `and` where an image is listed with both."""


def assign_splits(store: Store, ledger: dict[str, str], subjects: Subjects | None = None) -> SplitAssignment:
    """Assign every accepted image of the store to a split.

    The ledger has the earlier assignments: of contents by their hash, of subjects by `subject_key`, and of the images
    of divided groups by `divided_key`.
    """
    hash_of, subjects = store.hashes_by_id(), subjects or {}
    resolved = resolve_labels(store, subjects)
    conflicting = {hash_of[content_id] for content_id in resolved.conflicting}
    labels = {
        hash_of[content_id]: next(iter(names)) for content_id, names in resolved.labels.items() if len(names) == 1
    }
    usable = {content_hash: label for content_hash, label in labels.items() if content_hash not in conflicting}
    neighbors: dict[str, set[str]] = defaultdict(set)
    for first, second in store.pairs().tolist():
        neighbors[hash_of[first]].add(hash_of[second])
        neighbors[hash_of[second]].add(hash_of[first])
    subjects_of = {hash_of[content_id]: names for content_id, names in subjects.items() if content_id in hash_of}
    for content_hash in usable.keys() & subjects_of.keys():
        # A subject is a node of its own, which joins its images and is remembered by the ledger.
        for key in map(subject_key, subjects_of[content_hash]):
            neighbors[content_hash].add(key)
            neighbors[key].add(content_hash)
    divided = _find_divided(usable, neighbors)
    neighbors = {
        member: {other for other in others if other not in divided}
        for member, others in neighbors.items()
        if member not in divided
    }
    known = _valid_entries(ledger, divided, subjects_of)
    assigned, spanning = assign_new(usable, neighbors, known)
    known |= assigned
    entries = {divided_key(name) if name in divided else name: split for name, split in assigned.items()}
    new_entries = {name: split for name, split in entries.items() if ledger.get(name) != split}
    splits = {content_hash: known[content_hash] for content_hash in usable if content_hash in known}
    spanning |= _separated(splits, neighbors, known)
    splits = {content_hash: split for content_hash, split in splits.items() if content_hash not in spanning}
    excluded = dict.fromkeys(conflicting, ExclusionReason.LABEL_CONFLICT)
    excluded |= dict.fromkeys(spanning, ExclusionReason.SPANS_SPLITS)
    names_of = {content_hash: " and ".join(sorted(names)) for content_hash, names in subjects_of.items()}
    return SplitAssignment(splits, labels, new_entries, excluded, divided & usable.keys(), names_of)


def subject_key(subject: str) -> str:
    """Return the name of a subject in the ledger, which must not disclose it."""
    return f"{_SUBJECT}{hashlib.sha256(subject.encode()).hexdigest()[:32]}"


def is_subject_key(name: str) -> bool:
    """Return whether an entry of the ledger is that of a subject."""
    return name.startswith(_SUBJECT)


def divided_key(content_hash: str) -> str:
    """Return the name in the ledger of an image whose group is divided: it counts only as long as that is so."""
    return f"{_DIVIDED}{content_hash}"


def _valid_entries(ledger: dict[str, str], divided: set[str], subjects_of: dict[str, set[str]]) -> dict[str, str]:
    """Return the assignments that still hold, by content hash or key of a subject.

    An image whose subject is new, or in another split, is assigned anew with its subject: where it was before, it was
    apart from the other images of a person.
    """

    def holds(name: str, split: str) -> bool:
        return all(ledger.get(subject_key(subject)) == split for subject in subjects_of.get(name, ()))

    known = {
        name: split
        for name, split in ledger.items()
        if name not in divided and not name.startswith(_DIVIDED) and holds(name, split)
    }
    return known | {name: ledger[key] for name in divided if (key := divided_key(name)) in ledger}


def _find_divided(labels: dict[str, str], neighbors: dict[str, set[str]]) -> set[str]:
    """Return the members of all groups that contain a class with fewer than three groups."""
    groups = _group_neighbors(sorted({*labels, *(name for name in neighbors if is_subject_key(name))}), neighbors)
    classes = [{labels[member] for member in group if member in labels} for group in groups]
    counts = Counter(label for found in classes for label in found)
    return {
        member
        for group, found in zip(groups, classes, strict=True)
        if len(group) > 1 and any(counts[label] < len(SPLITS) for label in found)
        for member in group
    }


def assign_new(
    labels: dict[str, str], neighbors: dict[str, set[str]], ledger: dict[str, str]
) -> tuple[dict[str, str], set[str]]:
    """Assign every image that the ledger does not have to a split.

    Args:
        labels: the emotion of each usable image, by content hash.
        neighbors: the near-duplicates and the subjects of each image; may name images without a label.
        ledger: the earlier assignments.

    Returns:
        The new assignments, and the images left out because their near-duplicates are in different splits.
    """
    assigned = dict(ledger)
    named = {other for content_hash in labels for other in neighbors.get(content_hash, ()) if is_subject_key(other)}
    new = sorted(name for name in {*labels, *named} if name not in ledger)
    spanning = _follow_neighbors(new, neighbors, assigned)
    counts = Counter(
        (assigned[content_hash], label) for content_hash, label in labels.items() if content_hash in assigned
    )
    groups = _group_neighbors([h for h in new if h not in assigned and h not in spanning], neighbors)
    remaining = Counter(label for group in groups for label in {labels[m] for m in group if m in labels})
    for group in sorted(groups, key=_assignment_order):
        added = Counter(labels[member] for member in group if member in labels)
        split = _most_underfilled(added, counts, remaining)
        remaining.subtract(added.keys())
        for member in group:
            assigned[member] = split
        counts.update({(split, label): number for label, number in added.items()})
    return {content_hash: assigned[content_hash] for content_hash in new if content_hash in assigned}, spanning


def _assignment_order(group: list[str]) -> tuple[int, bytes]:
    """Return a group's sort key: subjects, the largest first, before single images, which fill what is left."""
    size = len(group) if any(map(is_subject_key, group)) else 0
    return -size, hashlib.sha256(_SALT + group[0].encode()).digest()


def _follow_neighbors(new: list[str], neighbors: dict[str, set[str]], assigned: dict[str, str]) -> set[str]:
    """Add new images to `assigned` in the split of their assigned near-duplicates; return those with several splits."""
    spanning: set[str] = set()
    progress = True
    while progress:
        progress = False
        for content_hash in new:
            if content_hash in assigned or content_hash in spanning:
                continue
            splits = Counter(assigned[other] for other in neighbors.get(content_hash, ()) if other in assigned)
            if len(splits) == 1 or (splits and is_subject_key(content_hash)):
                # A subject goes where most of its images are; the others are left out.
                assigned[content_hash] = max(SPLITS, key=lambda split: splits[split])
                progress = True
            elif splits:
                spanning.add(content_hash)
    return spanning


def _separated(splits: dict[str, str], neighbors: dict[str, set[str]], known: dict[str, str]) -> set[str]:
    """Return the images that have a near-duplicate in a smaller split, or their subject in another.

    New images are never assigned like this, but a changed decoder may find two images alike that were not, and an image
    may show two subjects.
    """
    return {
        content_hash
        for content_hash, split in splits.items()
        for other in neighbors.get(content_hash, ())
        if (other in splits and SPLITS.index(split) < SPLITS.index(splits[other]))
        or (is_subject_key(other) and known[other] != split)
    }


def _group_neighbors(members: list[str], neighbors: dict[str, set[str]]) -> list[list[str]]:
    """Return the connected components of sorted `members`, each sorted."""
    number_of = {member: number for number, member in enumerate(members)}
    edges = [
        (number, number_of[other])
        for member, number in number_of.items()
        for other in neighbors.get(member, ())
        if other in number_of
    ]
    groups: dict[int, list[str]] = defaultdict(list)
    labels = component_labels(np.array(edges, dtype=np.int64).reshape(-1, 2), len(members))
    for member, label in zip(members, labels.tolist(), strict=True):
        groups[label].append(member)
    return list(groups.values())


def _most_underfilled(added: Counter[str], counts: Counter[tuple[str, str]], remaining: Counter[str]) -> str:
    """Return the split that is furthest below its fraction of the classes in `added`.

    A split that would stay without one of the classes comes first; `remaining` counts the groups of each class.
    """
    urgent: set[str] = set()
    for label in added:
        empty = [split for split in SPLITS if not counts[split, label]]
        if remaining[label] <= len(empty):
            urgent.update(empty)

    def missing(split: str) -> float:
        return sum(
            number
            * (SPLIT_FRACTIONS[split] * (sum(counts[other, label] for other in SPLITS) + number) - counts[split, label])
            for label, number in added.items()
        )

    return max((split for split in SPLITS if not urgent or split in urgent), key=missing)
