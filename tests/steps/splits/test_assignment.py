from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.steps.ingest.decode import DecodedContent
from emotion_assets.steps.ingest.scan import SourceFile
from emotion_assets.steps.ingest.store import STORE_NAME, Store
from emotion_assets.steps.splits.assignment import (
    SPLIT_FRACTIONS,
    SPLITS,
    ExclusionReason,
    assign_new,
    assign_splits,
    divided_key,
    subject_key,
)
from emotion_assets.steps.splits.make import LEDGER_NAME, read_ledger


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


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / STORE_NAME) as opened:
        yield opened


def name_of(content_id: int) -> str:
    """Return the hash of the content with this id, which `add` gives it."""
    return f"{content_id:064}"


def add(store: Store, labels: Iterable[str], pairs: Iterable[tuple[int, int]] = ()) -> list[str]:
    """Add one image for each label to a store, and pairs of near-duplicates by id; return the images' hashes."""
    names = [name_of(content_id) for content_id, _ in enumerate(labels, len(store.hashes_by_id()) + 1)]
    entries = [
        (SourceFile(f"{label}/{name}.png".encode(), label, 10, 1, 1), DecodedContent(name, 64, 64, "L", "PNG", b"x"))
        for name, label in zip(names, labels, strict=True)
    ]
    store.add(entries, dict.fromkeys(names, np.ones(120, dtype=np.int16).tobytes()))
    store.add_pairs(pairs, [])
    return names


def test_three_images_of_a_class_are_in_three_splits() -> None:
    """No split stays without a class that has enough images."""
    labels = dict.fromkeys("abc", "happy") | dict.fromkeys("defghi", "sad")

    given_splits, _ = assign_new(labels, {}, {})

    for emotion in ("happy", "sad"):
        assert {given_splits[name] for name, label in labels.items() if label == emotion} == set(SPLITS)


def test_a_subject_goes_where_most_of_its_images_are() -> None:
    """The new ones follow it."""
    labels, key = dict.fromkeys("abcd", "happy"), subject_key("Ann")
    neighbors = {key: set(labels)} | {name: {key} for name in labels}

    given_splits, excluded = assign_new(labels, neighbors, {"a": "val", "b": "test", "c": "test"})

    assert given_splits == {key: "test", "d": "test"}
    assert not excluded


def test_the_name_of_a_subject_is_not_in_the_ledger() -> None:
    assert "Ann" not in subject_key("Ann")
    assert subject_key("Ann") != subject_key("Bob")


@pytest.mark.parametrize("split", SPLITS)
def test_a_new_near_duplicate_follows_into_the_split(store: Store, split: str) -> None:
    """Whichever of the two came first."""
    old, new = add(store, ["happy", "happy"], [(1, 2)])
    others = dict.fromkeys(add(store, ["happy"] * 3), "train")

    for first, second in ((old, new), (new, old)):
        assigned = assign_splits(store, others | {first: split})
        assert assigned.splits[second] == split
        assert assigned.new_entries == {second: split}


def test_near_duplicates_with_two_labels_are_in_no_split(store: Store) -> None:
    """Neither label can be trusted, even if the ledger has the images."""
    first, second, *others = add(store, ["happy", "sad", "happy"], [(1, 2)])

    assigned = assign_splits(store, {first: "test"})

    assert assigned.excluded == dict.fromkeys([first, second], ExclusionReason.LABEL_CONFLICT)
    assert list(assigned.splits) == others


def test_the_larger_split_loses_what_became_a_near_duplicate(store: Store) -> None:
    first, second, *_ = add(store, ["happy"] * 5, [(1, 2)])

    assigned = assign_splits(store, {first: "train", second: "val"})

    assert assigned.excluded == {first: ExclusionReason.SPANS_SPLITS}
    assert assigned.splits[second] == "val"


def test_an_image_of_two_subjects_in_two_splits_is_in_none(store: Store) -> None:
    """A new person is beside Ann in one image, and beside Bob in another: one of them is left out."""
    with_ann, with_bob, *_ = add(store, ["happy"] * 5)
    ledger = {subject_key("Ann"): "train", subject_key("Bob"): "test"}

    assigned = assign_splits(store, ledger, {1: {"Ann", "new"}, 2: {"new", "Bob"}})

    assert assigned.splits.keys() & {with_ann, with_bob} == {with_ann}
    assert assigned.excluded == {with_bob: ExclusionReason.SPANS_SPLITS}
    assert assigned.subjects == {with_ann: "Ann and new", with_bob: "Bob and new"}


def test_images_whose_subject_becomes_known_are_assigned_anew(store: Store) -> None:
    """All in one split, which the ledger remembers instead of the earlier ones."""
    names = add(store, ["happy"] * 12)
    ledger = assign_splits(store, {}).new_entries
    assert len({ledger[name] for name in names[:10]}) > 1
    subjects = {content_id: {"Ann"} for content_id in range(1, 11)}

    assigned = assign_splits(store, ledger, subjects)
    ledger |= assigned.new_entries
    again = assign_splits(store, ledger, subjects)

    assert len({assigned.splits[name] for name in names[:10]}) == 1
    assert {name: ledger[name] for name in names} == assigned.splits == again.splits
    assert not again.new_entries


@pytest.mark.parametrize("people", [["Ann"], ["Ann", "Bob"]], ids=len)
def test_a_divided_image_keeps_its_split_as_long_as_it_is_divided(store: Store, people: list[str]) -> None:
    """One or two people are in every split; the frames that come later move none, and a third person ends it."""

    def record(num_frames: int, people: list[str]) -> dict[int, set[str]]:
        start = len(store.hashes_by_id()) + 1
        add(store, ["happy"] * num_frames * len(people))
        return {start + number: {people[number % len(people)]} for number in range(num_frames * len(people))}

    subjects = record(20, people)
    first = assign_splits(store, {}, subjects)
    subjects |= record(30, people)
    ledger = first.new_entries
    second = assign_splits(store, ledger, subjects)
    ledger = ledger | second.new_entries
    subjects |= record(20, ["Cid", "Dan"])
    third = assign_splits(store, ledger, subjects)

    assert first.divided == first.splits.keys()
    assert first.new_entries == {divided_key(name): split for name, split in first.splits.items()}
    assert set(first.splits.values()) == set(SPLITS)
    assert first.splits.items() <= second.splits.items()
    assert not third.divided
    for person in [*people, "Cid", "Dan"]:
        assert len({third.splits[name_of(number)] for number, names in subjects.items() if person in names}) == 1


def test_a_group_with_one_rare_class_is_divided(store: Store) -> None:
    """Others show sad faces as well; only Ann shows happy ones."""
    happy = add(store, ["happy"] * 10)
    subjects = {content_id: {"Ann"} for content_id in range(1, 16)}
    add(store, ["sad"] * 30)
    subjects |= {content_id: {f"person {content_id % 5}"} for content_id in range(16, 41)}

    assigned = assign_splits(store, {}, subjects)

    assert {assigned.splits[name] for name in happy} == set(SPLITS)
    assert len(assigned.divided) == 15


def test_single_images_are_not_divided(store: Store) -> None:
    """Two images that resemble no other keep their place in the ledger when more of their class come."""
    names = add(store, ["happy", "happy"])
    few = assign_splits(store, {})
    add(store, ["happy"] * 20)

    more = assign_splits(store, few.new_entries)

    assert not few.divided
    assert few.new_entries.keys() == set(names)
    assert few.splits.items() <= more.splits.items()
