from __future__ import annotations

import hashlib
import random
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.files import locked
from emotion_assets.demo.faces import draw_dataset, draw_face
from emotion_assets.steps.ingest.catalogue import LOCK_NAME, ingest_images
from emotion_assets.steps.splits.assignment import SPLIT_FRACTIONS, SPLITS, assign
from emotion_assets.steps.splits.splits import (
    LEDGER_NAME,
    Split,
    leaking_pairs,
    make_splits,
    read_ledger,
    read_manifest,
    read_split,
)


@pytest.fixture
def root(drawn_root: Path, tmp_path: Path) -> Path:
    """A copy of the drawn data root that a test may change."""
    return Path(shutil.copytree(drawn_root, tmp_path / "root"))


def remake(root: Path) -> dict[str, str]:
    """Take stock and split again; return the split of each content."""
    ingest_images(root / "raw", root / "catalogue")
    make_splits(root / "catalogue", root / "splits")
    return members(root)


def members(root: Path) -> dict[str, str]:
    return {h: name for name in SPLITS for h in read_split(root / "splits", name).content_hashes}


def test_splits_hold_what_the_catalogue_accepted(drawn_root: Path) -> None:
    """Arrays have the contract's forms, and every class its fraction of each split."""
    manifest = read_manifest(drawn_root / "splits")
    for name in SPLITS:
        split = read_split(drawn_root / "splits", name)
        assert split.pixels.dtype == np.uint8
        assert split.pixels.shape[1:] == (64, 64)
        assert len(split.pixels) == len(split.class_indices) == len(split.content_hashes)
        counts = Counter(EMOTIONS[index] for index in split.class_indices)
        assert counts == manifest["counts"][name]
        for emotion in EMOTIONS:
            assert abs(counts[emotion] - 40 * SPLIT_FRACTIONS[name]) <= 2


def test_splits_do_not_depend_on_names_and_order(root: Path, tmp_path: Path) -> None:
    """The same delivery under other names, in another place and without the ledger gives the same splits."""
    other = tmp_path / "other"
    paths = list((root / "raw").rglob("*.jpg"))
    random.Random(5).shuffle(paths)
    for number, path in enumerate(paths):
        target = other / "raw" / path.parts[-3].upper() / str(number % 3) / f"{number}.jpeg"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)

    assert remake(other) == members(root)


def test_a_image_keeps_its_split(root: Path) -> None:
    """After half of the files left and others came, those that stayed are where they were."""
    before = members(root)
    for path in sorted((root / "raw").rglob("*.jpg"))[::2]:
        path.unlink()
    draw_dataset(root, num_per_emotion=30, seed=2)

    after = remake(root)

    kept = before.keys() & after.keys()
    assert len(kept) == len(before) // 2
    assert all(after[content] == before[content] for content in kept)


def test_a_image_that_comes_back_keeps_its_split(root: Path, tmp_path: Path) -> None:
    """The ledger remembers what left."""
    before = members(root)
    shutil.move(root / "raw" / "Sad", tmp_path / "Sad")
    (root / "raw" / "Sad").mkdir()
    draw_dataset(root, num_per_emotion=20, seed=3)
    remake(root)
    shutil.rmtree(root / "raw" / "Sad")
    shutil.move(tmp_path / "Sad", root / "raw" / "Sad")

    after = remake(root)

    assert all(after[content] == split for content, split in before.items() if content in after)
    assert before.keys() <= after.keys()


def test_nothing_is_rewritten_when_nothing_changed(root: Path) -> None:
    """A second call leaves the arrays' files alone."""
    path = root / "splits" / "train" / "pixels.npy"
    before = path.stat().st_mtime_ns

    make_splits(root / "catalogue", root / "splits")

    assert path.stat().st_mtime_ns == before


def test_damaged_arrays_are_rejected_and_healed(root: Path) -> None:
    """A torn file is noticed when it is read, and written again by the next run."""
    path = root / "splits" / "val" / "pixels.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(UnusableDataError, match="Materialize greyscale_splits again"):
        read_split(root / "splits", "val")
    path.unlink()
    with pytest.raises(UnusableDataError, match="is missing"):
        read_split(root / "splits", "val")

    make_splits(root / "catalogue", root / "splits")

    assert path.read_bytes() == whole


@pytest.mark.parametrize("content", ["", "{}", '{"schema_version": 1'])
def test_a_damaged_manifest_is_rejected_and_healed(root: Path, content: str) -> None:
    """It says nothing that could not be written again."""
    path = root / "splits" / "manifest.json"
    whole = path.read_text()
    path.write_text(content)
    with pytest.raises(UnusableDataError, match="Materialize greyscale_splits again"):
        read_split(root / "splits", "val")

    make_splits(root / "catalogue", root / "splits")

    assert path.read_text() == whole


def test_a_torn_ledger_line_is_passed_over(root: Path) -> None:
    """A kill in the middle of an append loses at most that line, and the next append starts a new one."""
    ledger = root / "splits" / LEDGER_NAME
    text = ledger.read_text()
    ledger.write_text(text[:-30])

    remake(root)

    assert read_ledger(ledger).keys() == {line.split(",")[0] for line in text.splitlines()}


def test_a_image_with_two_labels_is_left_out(root: Path) -> None:
    """The same image under two labels is in no split, and the report counts it."""
    before = members(root)
    path = next((root / "raw" / "Happy").rglob("*.jpg"))
    shutil.copyfile(path, root / "raw" / "Sad" / "again.jpg")
    ingest_images(root / "raw", root / "catalogue")

    report = make_splits(root / "catalogue", root / "splits")

    assert report.num_label_conflicts == 1
    assert len(members(root)) == len(before) - 1


def test_too_few_images_are_rejected_with_counts(tmp_path: Path) -> None:
    """Nine images of a class cannot be split; the message says which and how many."""
    draw_dataset(tmp_path, num_per_emotion=12, seed=0)
    for path in sorted((tmp_path / "raw" / "Fear").rglob("*.jpg"))[:3]:
        path.unlink()
    ingest_images(tmp_path / "raw", tmp_path / "catalogue")

    with pytest.raises(UnusableDataError, match="fear 9"):
        make_splits(tmp_path / "catalogue", tmp_path / "splits")


def test_without_a_catalogue_the_remedy_is_the_ingest(tmp_path: Path) -> None:
    """Images may lie in `raw/` already; nothing is left behind that looks like a catalogue."""
    draw_dataset(tmp_path, num_per_emotion=1, seed=0)

    with pytest.raises(UnusableDataError, match="Materialize raw_images first"):
        make_splits(tmp_path / "catalogue", tmp_path / "splits")
    assert not (tmp_path / "catalogue").exists()


def test_pixels_of_another_decoder_are_not_trained_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service would see the same images otherwise; the next ingest reads them again."""
    for module in ("store", "reading"):
        monkeypatch.setattr(f"emotion_assets.steps.data.{module}.DECODER_VERSION", "another")
    with pytest.raises(UnusableDataError, match="Materialize raw_images first"):
        make_splits(root / "catalogue", root / "splits")

    ingest_images(root / "raw", root / "catalogue")
    assert make_splits(root / "catalogue", root / "splits").num_new == 0


def test_images_that_turn_out_alike_across_splits_do_not_block_everything(root: Path) -> None:
    """Another decoder may see two as one image; both keep their split in the ledger, and the larger split gives."""
    path = next((root / "raw").rglob("Happy/**/*.jpg"))
    copy = path.with_suffix(".png")
    Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(copy)
    ingest_images(root / "raw", root / "catalogue")
    make_splits(root / "catalogue", root / "splits")
    ours, theirs = (hashlib.sha256(each.read_bytes()).hexdigest() for each in (path, copy))
    ledger = root / "splits" / "ledger.csv"
    lines = dict(line.split(",") for line in ledger.read_text().split())
    assert lines[ours] == lines[theirs]
    lines |= {ours: "train", theirs: "test"}
    ledger.write_text("".join(f"{name},{split}\n" for name, split in lines.items()))

    report = make_splits(root / "catalogue", root / "splits")

    assert report.num_spanning == 1
    assert ours not in members(root)
    assert members(root)[theirs] == "test"
    assert not leaking_pairs([read_split(root / "splits", name) for name in SPLITS])


def test_what_a_kill_left_is_removed(root: Path) -> None:
    """Half-written arrays are as large as whole ones."""
    temporary = root / "splits" / "train" / ".pixels.npy.0a1b2c3d.tmp"
    temporary.write_bytes(b"half")

    make_splits(root / "catalogue", root / "splits")

    assert not temporary.exists()


def test_splitting_waits_for_an_ingest(root: Path) -> None:
    """Beside one, images would be dealt that nobody has compared yet, and permanently."""
    with ThreadPoolExecutor(1) as pool:
        with locked(root / "catalogue" / LOCK_NAME):
            waiting = pool.submit(make_splits, root / "catalogue", root / "splits")
            with pytest.raises(TimeoutError):
                waiting.result(0.5)
        waiting.result(60)


def test_too_few_images_say_why_others_are_not_used(tmp_path: Path) -> None:
    """Someone who links a folder into `raw/` reads at once that links are not followed."""
    draw_dataset(tmp_path, num_per_emotion=12, seed=0)
    raw_dir = tmp_path / "raw"
    (raw_dir / "Fear").rename(tmp_path / "elsewhere")
    (raw_dir / "Fear").symlink_to(tmp_path / "elsewhere")
    for name in ("a.jpg", "b.jpg"):
        (raw_dir / "Happy" / name).write_bytes(b"")
    ingest_images(raw_dir, tmp_path / "catalogue")

    with pytest.raises(
        UnusableDataError, match=r"fear 0; .* 2 not used: The image is empty .* 1 not used: Links are not"
    ):
        make_splits(tmp_path / "catalogue", tmp_path / "splits")


def test_an_ingest_killed_before_comparing_leaks_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images that nobody compared yet are compared before they are dealt."""
    for path in sorted((root / "raw").rglob("*.jpg"))[:60]:
        Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path.with_suffix(".png"))
    with monkeypatch.context() as patch:
        patch.setattr("emotion_assets.steps.ingest.catalogue.compare_new_contents", lambda _: 0)
        ingest_images(root / "raw", root / "catalogue")
    shutil.rmtree(root / "splits")

    make_splits(root / "catalogue", root / "splits")

    assert leaking_pairs([read_split(root / "splits", name) for name in SPLITS]) == []


def test_leaking_pairs_finds_a_planted_leak() -> None:
    """The check reports a mirrored copy across splits, and nothing else."""
    rng = np.random.default_rng(4)
    from emotion_assets.core.images import decode_image

    pixels = np.stack([decode_image(draw_face(EMOTIONS[i % 5], rng)).pixels for i in range(12)])
    names = tuple(f"{i:064}" for i in range(12))
    train = Split(pixels[:10], np.zeros(10, dtype=np.int64), names[:10])
    clean = Split(pixels[10:], np.zeros(2, dtype=np.int64), names[10:])
    leaky = Split(pixels[3:4, :, ::-1], np.zeros(1, dtype=np.int64), names[11:])

    assert leaking_pairs([train, clean]) == []
    assert leaking_pairs([train, leaky]) == [(names[3], names[11])]


def test_a_newcomer_that_ties_splits_is_left_out() -> None:
    """An image near to one of train and one of test belongs to neither."""
    labels = dict.fromkeys(("a", "b", "new", "far"), "happy")
    neighbours = {"new": {"a", "b"}, "a": {"new"}, "b": {"new"}, "far": {"new"}}

    given_splits, excluded = assign(labels, neighbours, {"a": "train", "b": "test"})

    assert excluded == {"new"}
    assert set(given_splits) == {"far"}


@pytest.mark.parametrize("num_images", [1000, 1500])
def test_fractions_are_met_for_every_class(num_images: int) -> None:
    """With a thousand images a class, each split has its share within half a point."""
    labels = {f"{emotion}{i}": emotion for emotion in EMOTIONS for i in range(num_images)}

    given_splits, _ = assign(labels, {}, {})

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
# Images that are near-duplicates of each other: few enough to leave groups, enough to tie some.
relations = st.sets(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=40)


@settings(max_examples=150, deadline=None)
@given(deliveries=st.lists(events, min_size=1, max_size=5), related=relations)
def test_splits_never_move_and_never_leak(
    deliveries: list[list[tuple[int, str, str]]], related: set[tuple[int, int]]
) -> None:
    """Whatever is added, removed and relabelled: no assignment changes and no near-duplicates are torn apart."""
    neighbours: dict[str, set[str]] = {}
    for first, second in related:
        if first != second:
            neighbours.setdefault(f"{first:02}", set()).add(f"{second:02}")
            neighbours.setdefault(f"{second:02}", set()).add(f"{first:02}")
    present: dict[str, str] = {}
    ledger: dict[str, str] = {}
    for delivery in deliveries:
        for number, action, emotion in delivery:
            if action == "remove":
                present.pop(f"{number:02}", None)
            else:
                present[f"{number:02}"] = emotion
        seen = {content: near & (present.keys() | ledger.keys()) for content, near in neighbours.items()}

        given_splits, excluded = assign(present, seen, ledger)

        assert not given_splits.keys() & ledger.keys()
        assert excluded.isdisjoint(given_splits)
        assert given_splits.keys() | excluded | ledger.keys() >= present.keys()
        ledger |= given_splits
        for content, near in seen.items():
            for other in near:
                if content in ledger and other in ledger:
                    assert ledger[content] == ledger[other]
        shuffled = dict(random.Random(1).sample(sorted(present.items()), len(present)))
        assert assign(shuffled, seen, {k: v for k, v in ledger.items() if k not in given_splits})[0] == given_splits
