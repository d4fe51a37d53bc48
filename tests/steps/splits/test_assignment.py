from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.steps.ingest.store import STORE_NAME, Store
from emotion_assets.steps.splits.assignment import SPLIT_FRACTIONS, SPLITS, assign_new, assign_splits, subject_key
from emotion_assets.steps.splits.splits import LEDGER_NAME, read_ledger


def test_assign_splits_keeps_what_the_ledger_has(drawn_root: Path) -> None:
    """With the ledger nothing is new; without it the same splits come out."""
    ledger = read_ledger(drawn_root / "splits" / LEDGER_NAME)
    with Store(drawn_root / "catalogue" / STORE_NAME) as store:
        known, rebuilt = assign_splits(store, ledger), assign_splits(store, {})

    assert known.splits == rebuilt.splits == rebuilt.new_entries
    assert not known.new_entries
    assert known.excluded == rebuilt.excluded
    assert known.excluded.keys().isdisjoint(known.splits)


def test_a_new_image_that_spans_splits_is_excluded() -> None:
    """A near-duplicate of one image of train and one of test belongs to neither."""
    labels = dict.fromkeys(("a", "b", "new", "far"), "happy")
    neighbors = {"new": {"a", "b"}, "a": {"new"}, "b": {"new"}, "far": {"new"}}

    given_splits, excluded = assign_new(labels, neighbors, {"a": "train", "b": "test"})

    assert excluded == {"new"}
    assert set(given_splits) == {"far"}


@pytest.mark.parametrize("num_images", [1000, 1500])
def test_fractions_are_met_for_every_class(num_images: int) -> None:
    """With a thousand images a class, each split has its fraction within half a point."""
    labels = {f"{emotion}{i}": emotion for emotion in EMOTIONS for i in range(num_images)}

    given_splits, _ = assign_new(labels, {}, {})

    for emotion in EMOTIONS:
        counts = Counter(split for content, split in given_splits.items() if labels[content] == emotion)
        for split in SPLITS:
            assert abs(counts[split] / num_images - SPLIT_FRACTIONS[split]) < 0.005


events = st.lists(
    st.tuples(
        st.integers(0, 60),  # which image
        st.sampled_from(["add", "remove", "relabel"]),
        st.sampled_from(EMOTIONS),
    ),
    min_size=1,
    max_size=60,
)
# Near-duplicates: few enough to leave several groups, enough to let some span splits.
relations = st.sets(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=40)


@settings(max_examples=150, deadline=None)
@given(deliveries=st.lists(events, min_size=1, max_size=5), related=relations)
def test_splits_never_move_and_never_leak(
    deliveries: list[list[tuple[int, str, str]]], related: set[tuple[int, int]]
) -> None:
    """Whatever is added, removed and relabelled: no assignment changes and no near-duplicates are torn apart."""
    neighbors: dict[str, set[str]] = {}
    for first, second in related:
        if first != second:
            neighbors.setdefault(f"{first:02}", set()).add(f"{second:02}")
            neighbors.setdefault(f"{second:02}", set()).add(f"{first:02}")
    present: dict[str, str] = {}
    ledger: dict[str, str] = {}
    for delivery in deliveries:
        for number, action, emotion in delivery:
            if action == "remove":
                present.pop(f"{number:02}", None)
            else:
                present[f"{number:02}"] = emotion
        seen = {content: near & (present.keys() | ledger.keys()) for content, near in neighbors.items()}

        given_splits, excluded = assign_new(present, seen, ledger)

        assert not given_splits.keys() & ledger.keys()
        assert excluded.isdisjoint(given_splits)
        assert given_splits.keys() | excluded | ledger.keys() >= present.keys()
        ledger |= given_splits
        for content, near in seen.items():
            for other in near:
                if content in ledger and other in ledger:
                    assert ledger[content] == ledger[other]
        shuffled = dict(random.Random(1).sample(sorted(present.items()), len(present)))
        assert assign_new(shuffled, seen, {k: v for k, v in ledger.items() if k not in given_splits})[0] == given_splits


@pytest.mark.parametrize("num_single", [0, 320, 1200])
def test_subjects_are_in_every_split_among_many_single_images(num_single: int) -> None:
    """Single images would fill the small splits, and every subject be trained on."""
    labels = {f"{number:05}": "happy" for number in range(1200 + num_single)}
    neighbors: dict[str, set[str]] = {}
    for number in range(1200):
        key = subject_key(f"person {number // 12}")
        neighbors.setdefault(key, set()).add(f"{number:05}")
        neighbors[f"{number:05}"] = {key}

    assigned, _ = assign_new(labels, neighbors, {})

    counts = Counter(assigned[subject_key(f"person {number}")] for number in range(100))
    assert counts["val"] >= 8
    assert counts["test"] >= 8
