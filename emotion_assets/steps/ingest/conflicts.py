"""Decide which label an image has, where files or near-duplicates contradict each other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from emotion_assets.core.layout import is_feedback_image
from emotion_assets.steps.ingest.near_duplicates import component_of
from emotion_assets.steps.ingest.store import Store

MAX_COPIES: Final = 30
"""A published photograph has fewer copies, re-encoded and cropped: at most 16 in FER2013."""

Subjects = Mapping[int, set[str]]
"""The subjects of contents, by content id."""


@dataclass(frozen=True, slots=True)
class ResolvedLabels:
    """The labels of all accepted contents, by content id."""

    labels: dict[int, set[str]]
    """One for each content; several where its files contradict each other."""
    conflicting: set[int]
    """Contents that are left out because they, or a near-duplicate, have another label as well."""
    set_aside: set[tuple[int, str]]
    """Labels given through the service that contradict an image that was labelled before: for a person to decide."""


def resolve_labels(store: Store, subjects: Subjects) -> ResolvedLabels:
    """Resolve the labels of every accepted content.

    Near-duplicates of one subject, or in a group of more than 30, are frames of a recording: there, another label is
    another expression. Likeness cannot tell the two cases apart; see docs/near_duplicates.md.

    A label given through the service, by whomever, never counts against an image that was labelled otherwise: nobody
    can remove images from the test split by labelling copies of them.
    """
    delivered: dict[int, set[str]] = defaultdict(set)
    given: dict[int, set[str]] = defaultdict(set)
    for content_id, label, path in store.labelled_files():
        (given if is_feedback_image(path) else delivered)[content_id].add(label)
    labels = {content_id: delivered.get(content_id) or names for content_id, names in (given | delivered).items()}
    set_aside = {
        (content_id, name) for content_id, names in given.items() for name in names - delivered.get(content_id, names)
    }
    conflicting = {content_id for content_id, names in labels.items() if len(names) > 1}
    pairs = store.pairs()
    groups = component_of(pairs)
    sizes = Counter(groups.values())
    for first, second in pairs.tolist():
        if first not in labels or second not in labels or labels[first] == labels[second]:
            continue
        if sizes[groups[first]] > MAX_COPIES or subjects.get(first, set()) & subjects.get(second, set()):
            continue
        only_given = {content_id for content_id in (first, second) if content_id not in delivered}
        conflicting |= only_given if len(only_given) == 1 else {first, second}
        if len(only_given) == 1:
            set_aside |= {(content_id, name) for content_id in only_given for name in labels[content_id]}
    return ResolvedLabels(labels, conflicting, set_aside)
