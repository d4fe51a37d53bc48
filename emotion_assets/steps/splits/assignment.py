"""Decide which split an image goes to, so that no image is in two of them, now or ever.

An image once assigned keeps its split. Near-duplicates share one. New groups of near-duplicates are dealt in the order
of a hash of their content, each to the split that lacks most of its class, so one delivery gives the same splits
whatever the names and the order of its files are, and the fractions are met to within a group.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Final

from emotion_assets.steps.ingest.export import conflicts
from emotion_assets.steps.ingest.store import Store

SPLITS: Final = ("train", "val", "test")
SPLIT_FRACTIONS: Final = {"train": 0.8, "val": 0.1, "test": 0.1}

# Changes which group goes where; changing it would move every image of a rebuilt ledger.
_SALT: Final = b"emotion-splits-1"

LABEL_CONFLICT: Final = "label_conflict"
SPANS_SPLITS: Final = "spans_several_splits"


@dataclass(frozen=True, slots=True)
class SplitAssignment:
    """Who goes where, by content hash."""

    splits: dict[str, str]
    labels: dict[str, str]
    unassigned: dict[str, str]
    """The splits of those that the ledger does not know yet."""
    excluded: dict[str, str]
    """Why an image is in no split."""


def assign_splits(store: Store, ledger: dict[str, str]) -> SplitAssignment:
    """Give every accepted image of the store its split, the known ones that of the ledger.

    Args:
        store: whose contents have all been compared with each other.
        ledger: the splits given before, by content hash.
    """
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
    unassigned, spanning = assign(labels, neighbours, ledger)
    known = ledger | unassigned
    splits = {content_hash: known[content_hash] for content_hash in labels if content_hash in known}
    apart = _separated_duplicates(splits, neighbours)
    splits = {content_hash: split for content_hash, split in splits.items() if content_hash not in apart}
    spanning |= apart
    excluded = dict.fromkeys(conflicting, LABEL_CONFLICT) | dict.fromkeys(spanning, SPANS_SPLITS)
    return SplitAssignment(splits, labels, unassigned, excluded)


def assign(
    labels: dict[str, str], neighbours: dict[str, set[str]], ledger: dict[str, str]
) -> tuple[dict[str, str], set[str]]:
    """Choose a split for every image that the ledger does not know.

    Args:
        labels: the emotion of each usable image, by content hash.
        neighbours: the near-duplicates of each image; may name images without a label.
        ledger: the splits given before.

    Returns:
        The new assignments, and the images left out because they would tie different splits together.
    """
    given = dict(ledger)
    waiting = sorted(content_hash for content_hash in labels if content_hash not in given)
    excluded: set[str] = set()
    _follow_neighbours(waiting, neighbours, given, excluded)
    counts = Counter((given[content_hash], label) for content_hash, label in labels.items() if content_hash in given)
    groups = _groups([h for h in waiting if h not in given and h not in excluded], neighbours)
    for group in sorted(groups, key=lambda members: hashlib.sha256(_SALT + members[0].encode()).digest()):
        split = _most_underfilled(Counter(labels[member] for member in group), counts)
        for member in group:
            given[member] = split
            counts[split, labels[member]] += 1
    return {content_hash: given[content_hash] for content_hash in waiting if content_hash in given}, excluded


def _follow_neighbours(
    waiting: list[str], neighbours: dict[str, set[str]], given: dict[str, str], excluded: set[str]
) -> None:
    """Give each newcomer the split of its assigned relatives, over any number of steps; set ties aside."""
    progress = True
    while progress:
        progress = False
        for candidate_hash in waiting:
            if candidate_hash in given or candidate_hash in excluded:
                continue
            splits = {given[other] for other in neighbours.get(candidate_hash, ()) if other in given}
            if len(splits) == 1:
                given[candidate_hash] = splits.pop()
                progress = True
            elif splits:
                excluded.add(candidate_hash)


def _separated_duplicates(splits: dict[str, str], neighbours: dict[str, set[str]]) -> set[str]:
    """Return what has to go because its near-duplicates lie in another split; of two, that of the larger split.

    No new image is dealt so, but another decoder may find two alike that were not.
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


def _most_underfilled(added: Counter[str], counts: Counter[tuple[str, str]]) -> str:
    """Return the split that, for the classes in `added`, lies furthest below its share."""

    def lack(split: str) -> float:
        return sum(
            number
            * (SPLIT_FRACTIONS[split] * (sum(counts[other, label] for other in SPLITS) + number) - counts[split, label])
            for label, number in added.items()
        )

    return max(SPLITS, key=lack)
