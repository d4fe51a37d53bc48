"""Assign images to splits, so that no image is ever in two of them.

An assigned image keeps its split, and near-duplicates share one. New groups of near-duplicates are assigned in the
order of a content hash, each to the split furthest below its target for that class. The result does not depend on file
names or order, and the split fractions are exact up to the size of one group.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from emotion_assets.steps.ingest.export import conflicting_contents
from emotion_assets.steps.ingest.near_duplicates import component_labels
from emotion_assets.steps.ingest.store import Store

SPLITS: Final = ("train", "val", "test")
SPLIT_FRACTIONS: Final = {"train": 0.8, "val": 0.1, "test": 0.1}

# Changing it would move every image when a ledger is rebuilt.
_SALT: Final = b"emotion-splits-1"


class ExclusionReason(StrEnum):
    """Why an accepted image is in no split."""

    LABEL_CONFLICT = "label_conflict"
    SPANS_SPLITS = "spans_several_splits"


@dataclass(frozen=True, slots=True)
class SplitAssignment:
    """The splits of all usable images, by content hash."""

    splits: dict[str, str]
    labels: dict[str, str]
    """Of every accepted image that has only one."""
    unassigned: dict[str, str]
    """The part of `splits` that the ledger does not have yet."""
    excluded: dict[str, ExclusionReason]


def assign_splits(store: Store, ledger: dict[str, str]) -> SplitAssignment:
    """Assign every accepted image of the store to a split; `ledger` has the earlier assignments by content hash."""
    hash_of = store.hashes_by_id()
    conflicting = {hash_of[content_id] for content_id in conflicting_contents(store)}
    labels = {
        hash_of[content_id]: next(iter(names))
        for content_id, names in store.labels_by_content().items()
        if len(names) == 1
    }
    usable = {content_hash: label for content_hash, label in labels.items() if content_hash not in conflicting}
    neighbors: dict[str, set[str]] = defaultdict(set)
    for first, second in store.pairs().tolist():
        neighbors[hash_of[first]].add(hash_of[second])
        neighbors[hash_of[second]].add(hash_of[first])
    unassigned, spanning = assign_new(usable, neighbors, ledger)
    known = ledger | unassigned
    splits = {content_hash: known[content_hash] for content_hash in usable if content_hash in known}
    spanning |= _separated_duplicates(splits, neighbors)
    splits = {content_hash: split for content_hash, split in splits.items() if content_hash not in spanning}
    excluded = dict.fromkeys(conflicting, ExclusionReason.LABEL_CONFLICT)
    excluded |= dict.fromkeys(spanning, ExclusionReason.SPANS_SPLITS)
    return SplitAssignment(splits, labels, unassigned, excluded)


def assign_new(
    labels: dict[str, str], neighbors: dict[str, set[str]], ledger: dict[str, str]
) -> tuple[dict[str, str], set[str]]:
    """Assign every image that the ledger does not have to a split.

    Args:
        labels: the emotion of each usable image, by content hash.
        neighbors: the near-duplicates of each image; may name images without a label.
        ledger: the earlier assignments.

    Returns:
        The new assignments, and the images left out because their near-duplicates are in different splits.
    """
    assigned = dict(ledger)
    new = sorted(content_hash for content_hash in labels if content_hash not in ledger)
    spanning = _follow_neighbors(new, neighbors, assigned)
    counts = Counter(
        (assigned[content_hash], label) for content_hash, label in labels.items() if content_hash in assigned
    )
    groups = _group_neighbors([h for h in new if h not in assigned and h not in spanning], neighbors)
    for group in sorted(groups, key=lambda members: hashlib.sha256(_SALT + members[0].encode()).digest()):
        split = _most_underfilled(Counter(labels[member] for member in group), counts)
        for member in group:
            assigned[member] = split
            counts[split, labels[member]] += 1
    return {content_hash: assigned[content_hash] for content_hash in new if content_hash in assigned}, spanning


def _follow_neighbors(new: list[str], neighbors: dict[str, set[str]], assigned: dict[str, str]) -> set[str]:
    """Add new images to `assigned` in the split of their assigned near-duplicates; return those with several splits."""
    spanning: set[str] = set()
    progress = True
    while progress:
        progress = False
        for content_hash in new:
            if content_hash in assigned or content_hash in spanning:
                continue
            splits = {assigned[other] for other in neighbors.get(content_hash, ()) if other in assigned}
            if len(splits) == 1:
                assigned[content_hash] = splits.pop()
                progress = True
            elif splits:
                spanning.add(content_hash)
    return spanning


def _separated_duplicates(splits: dict[str, str], neighbors: dict[str, set[str]]) -> set[str]:
    """Return the images that have a near-duplicate in a smaller split.

    New images are never assigned like this, but a changed decoder may find two images alike that were not.
    """
    return {
        content_hash
        for content_hash, split in splits.items()
        for other in neighbors.get(content_hash, ())
        if other in splits and SPLITS.index(split) < SPLITS.index(splits[other])
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


def _most_underfilled(added: Counter[str], counts: Counter[tuple[str, str]]) -> str:
    """Return the split that is furthest below its fraction of the classes in `added`."""

    def missing(split: str) -> float:
        return sum(
            number
            * (SPLIT_FRACTIONS[split] * (sum(counts[other, label] for other in SPLITS) + number) - counts[split, label])
            for label, number in added.items()
        )

    return max(SPLITS, key=missing)
