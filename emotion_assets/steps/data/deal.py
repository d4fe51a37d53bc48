"""Decide which split a picture goes to, so that no photograph is in two of them, now or ever.

A picture once assigned keeps its split. Near-duplicates share one. New groups of near-duplicates are dealt in the order
of a hash of their content, each to the split that lacks most of its class, so one delivery gives the same splits
whatever the names and the order of its files are, and the shares are met to within a group.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Final

from emotion_assets.steps.data.store import Store
from emotion_assets.steps.data.table import conflicts

SPLITS: Final = ("train", "val", "test")
SHARES: Final = {"train": 0.8, "val": 0.1, "test": 0.1}

# Changes which group goes where; changing it would move every picture of a rebuilt ledger.
_SALT: Final = b"emotion-splits-1"

LABEL_CONFLICT: Final = "left_out_label_conflict"
TIES_SPLITS: Final = "left_out_ties_splits"


@dataclass(frozen=True, slots=True)
class Deal:
    """Who goes where, by content hash."""

    splits: dict[str, str]
    labels: dict[str, str]
    newcomers: dict[str, str]
    """The splits of those that the ledger does not know yet."""
    left_out: dict[str, str]
    """Why a picture is in no split."""


def deal_out(store: Store, ledger: dict[str, str]) -> Deal:
    """Give every accepted picture of the store its split, the known ones that of the ledger.

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
