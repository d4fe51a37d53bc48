from __future__ import annotations

import random
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.files import file_sha256, locked
from emotion_assets.core.images import decode_image
from emotion_assets.core.layout import DataPaths
from emotion_assets.demo.faces import draw_dataset
from emotion_assets.steps.ingest import catalogue, decode, store
from emotion_assets.steps.ingest.catalogue import LOCK_NAME, ingest_images
from emotion_assets.steps.ingest.export import read_catalogue
from emotion_assets.steps.splits.assignment import SPLIT_FRACTIONS, SPLITS
from emotion_assets.steps.splits.checks import leaking_pairs
from emotion_assets.steps.splits.make import LEDGER_NAME, make_splits, read_ledger
from emotion_assets.steps.splits.splits import read_assignments, read_manifest, read_split


def remake(root: Path) -> dict[str, str]:
    """Ingest and split again; return the split of each content."""
    ingest_images(DataPaths(root))
    make_splits(DataPaths(root))
    return members(root)


def members(root: Path) -> dict[str, str]:
    return {h: name for name in SPLITS for h in read_split(root / "splits", name).content_hashes}


def test_splits_hold_what_the_catalogue_accepted(drawn_root: Path) -> None:
    """Arrays have their documented shapes, and every class its fraction of each split."""
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


def test_assignments_list_every_accepted_image(drawn_root: Path) -> None:
    """The table agrees with the arrays, and names no path."""
    table = read_assignments(drawn_root / "splits")

    assert list(table) == ["content_hash", "label", "split", "excluded_because", "subject", "is_divided"]
    assigned = table[table["split"].notna()]
    assert dict(zip(assigned["content_hash"], assigned["split"], strict=True)) == members(drawn_root)
    assert (table["split"].isna() == table["excluded_because"].notna()).all()
    accepted = read_catalogue(drawn_root / "catalogue").query("is_accepted")
    assert sorted(table["content_hash"]) == sorted(accepted["content_hash"])
    assert set(table["label"]) == set(EMOTIONS)


def test_summary_has_counts_and_faces(root: Path) -> None:
    """Everything that people see of the splits."""
    report = make_splits(DataPaths(root))
    summary = report.summary()

    assert sum(int(summary.values[f"num_{name}"]) for name in SPLITS) == len(members(root))
    assert summary.values["fingerprint"] == report.fingerprint
    assert [row["split"] for row in summary.tables["counts"]] == list(SPLITS)
    assert summary.images.keys() == {"train_faces"}


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


def test_an_image_keeps_its_split(root: Path) -> None:
    """After half of the files were removed and others added, the rest are where they were."""
    before = members(root)
    paths = sorted((root / "raw").rglob("*.jpg"))
    staying = {file_sha256(path) for path in paths[1::2]} & before.keys()
    for path in paths[::2]:
        path.unlink()
    draw_dataset(DataPaths(root), num_per_class=30, seed=2)

    after = remake(root)

    assert staying <= after.keys()
    assert all(after[content] == before[content] for content in staying)


def test_an_image_that_comes_back_keeps_its_split(root: Path, tmp_path: Path) -> None:
    """The ledger remembers removed images."""
    before = members(root)
    shutil.move(root / "raw" / "Sad", tmp_path / "Sad")
    (root / "raw" / "Sad").mkdir()
    draw_dataset(DataPaths(root), num_per_class=20, seed=3)
    remake(root)
    shutil.rmtree(root / "raw" / "Sad")
    shutil.move(tmp_path / "Sad", root / "raw" / "Sad")

    after = remake(root)

    assert all(after[content] == split for content, split in before.items() if content in after)
    assert before.keys() <= after.keys()


def test_nothing_is_rewritten_when_nothing_changed(root: Path) -> None:
    """A second call rewrites neither arrays nor catalogue."""
    paths = [root / "splits" / "train" / "pixels.npy", root / "catalogue" / "catalogue.parquet"]
    before = [path.stat().st_mtime_ns for path in paths]

    make_splits(DataPaths(root))

    assert [path.stat().st_mtime_ns for path in paths] == before


def test_a_torn_ledger_line_is_skipped(root: Path) -> None:
    """A kill in the middle of an append loses at most that line, and the next append starts a new one."""
    ledger = root / "splits" / LEDGER_NAME
    text = ledger.read_text()
    ledger.write_text(text[:-30])

    remake(root)

    assert read_ledger(ledger).keys() == {line.split(",")[0] for line in text.splitlines()}


def test_an_image_with_two_labels_is_excluded(root: Path) -> None:
    """The same image under two labels is in no split, and the report counts it."""
    before = members(root)
    num_conflicts = make_splits(DataPaths(root)).num_label_conflicts
    path = next(path for path in (root / "raw" / "Happy").rglob("*.jpg") if file_sha256(path) in before)
    shutil.copyfile(path, root / "raw" / "Sad" / "again.jpg")
    ingest_images(DataPaths(root))

    report = make_splits(DataPaths(root))

    assert report.num_label_conflicts == num_conflicts + 1
    assert before.keys() - members(root).keys() == {file_sha256(path)}
    row = read_assignments(root / "splits").set_index("content_hash").loc[file_sha256(path)]
    assert row["excluded_because"] == "label_conflict"
    assert row[["label", "split"]].isna().all()


def test_too_few_images_are_rejected_with_counts(tmp_path: Path) -> None:
    """Nine images of a class cannot be split; the message says which and how many."""
    draw_dataset(DataPaths(tmp_path), num_per_class=12, seed=0)
    for path in sorted((tmp_path / "raw" / "Fear").rglob("*.jpg"))[:3]:
        path.unlink()
    ingest_images(DataPaths(tmp_path))

    with pytest.raises(UnusableDataError, match="fear 9"):
        make_splits(DataPaths(tmp_path))
    assert not read_ledger(tmp_path / "splits" / LEDGER_NAME)


def test_classes_that_are_no_longer_listed_are_ingested_again_first(root: Path) -> None:
    """The folders may belong to other classes now."""
    paths = DataPaths(root)
    paths.classes.write_text("".join(f"- {emotion}\n" for emotion in EMOTIONS if emotion != "sad"))

    with pytest.raises(
        UnusableDataError, match=r"has the class sad, which classes.yaml does not list.*raw_images first"
    ):
        make_splits(paths)


def test_without_a_catalogue_the_remedy_is_the_ingest(tmp_path: Path) -> None:
    """Images may lie in `raw/` already; nothing is left behind that looks like a catalogue."""
    draw_dataset(DataPaths(tmp_path), num_per_class=1, seed=0)

    with pytest.raises(UnusableDataError, match="Materialize raw_images first"):
        make_splits(DataPaths(tmp_path))
    assert not (tmp_path / "catalogue").exists()


def test_pixels_of_another_decoder_are_not_trained_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service would see other pixels; the next ingest reads the images again."""
    for module in (store, decode):
        monkeypatch.setattr(module, "DECODER_VERSION", "another")
    with pytest.raises(UnusableDataError, match="Materialize raw_images first"):
        make_splits(DataPaths(root))

    ingest_images(DataPaths(root))
    assert make_splits(DataPaths(root)).num_new == 0


def test_other_pixels_of_the_same_files_are_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer decoder may read other pixels; what is trained on them is another model."""
    before, fingerprint = read_split(root / "splits", "val"), make_splits(DataPaths(root)).fingerprint
    monkeypatch.setattr(
        decode,
        "decode_image",
        lambda content: replace(decode_image(content), pixels=255 - decode_image(content).pixels),
    )
    for module in (store, decode):
        monkeypatch.setattr(module, "DECODER_VERSION", "another")
    ingest_images(DataPaths(root), num_workers=1)

    report = make_splits(DataPaths(root))

    after = read_split(root / "splits", "val")
    assert report.fingerprint != fingerprint
    assert after.content_hashes == before.content_hashes
    assert np.array_equal(after.pixels, 255 - before.pixels)


def test_images_that_become_near_duplicates_across_splits_are_excluded(root: Path) -> None:
    """Another decoder may find two alike; both keep their split in the ledger, and the larger split loses its image."""
    path = next((root / "raw").rglob("Happy/**/*.jpg"))
    copy = path.with_suffix(".png")
    Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(copy)
    ingest_images(DataPaths(root))
    make_splits(DataPaths(root))
    ours, theirs = (file_sha256(each) for each in (path, copy))
    ledger = root / "splits" / "ledger.csv"
    lines = dict(line.split(",") for line in ledger.read_text().split())
    assert lines[ours] == lines[theirs]
    lines |= {ours: "train", theirs: "test"}
    ledger.write_text("".join(f"{name},{split}\n" for name, split in lines.items()))

    report = make_splits(DataPaths(root))

    assert report.num_spanning_splits == 1
    assert ours not in members(root)
    assert members(root)[theirs] == "test"
    assert not leaking_pairs([read_split(root / "splits", name) for name in SPLITS])


def test_temporary_files_of_a_killed_run_are_removed(root: Path) -> None:
    """Half-written arrays are as large as whole ones."""
    temporary = root / "splits" / "train" / ".pixels.npy.0a1b2c3d.tmp"
    temporary.write_bytes(b"half")

    make_splits(DataPaths(root))

    assert not temporary.exists()


def test_splitting_waits_for_an_ingest(root: Path) -> None:
    """During one, images would be assigned permanently before they are compared."""
    with ThreadPoolExecutor(1) as pool:
        with locked(root / "catalogue" / LOCK_NAME):
            waiting = pool.submit(make_splits, DataPaths(root))
            with pytest.raises(TimeoutError):
                waiting.result(0.5)
        waiting.result(60)


def test_too_few_images_say_why_others_are_not_used(tmp_path: Path) -> None:
    """Someone who links a folder into `raw/` reads at once that links are not followed."""
    draw_dataset(DataPaths(tmp_path), num_per_class=12, seed=0)
    raw_dir = tmp_path / "raw"
    (raw_dir / "Fear").rename(tmp_path / "elsewhere")
    (raw_dir / "Fear").symlink_to(tmp_path / "elsewhere")
    for name in ("a.jpg", "b.jpg"):
        (raw_dir / "Happy" / name).write_bytes(b"")
    ingest_images(DataPaths(tmp_path))

    with pytest.raises(
        UnusableDataError,
        match=r"fear 0; (?s:.*)2 with empty_image, such as raw/Happy/a.jpg(?s:.*)1 with symbolic_link, such as raw/Fear: Links",
    ):
        make_splits(DataPaths(tmp_path))


@pytest.mark.parametrize("step", ["compare_new_contents", "export_catalogue"])
def test_an_interrupted_ingest_is_completed_first(root: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images that were not compared yet are not assigned, so nothing leaks."""
    for path in sorted((root / "raw").rglob("*.jpg"))[:60]:
        Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path.with_suffix(".png"))
    shutil.rmtree(root / "splits")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(catalogue, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            ingest_images(DataPaths(root))
    with pytest.raises(UnusableDataError, match=r"interrupted.*Materialize raw_images first"):
        make_splits(DataPaths(root))
    assert not read_ledger(root / "splits" / LEDGER_NAME)

    remake(root)
    assert leaking_pairs([read_split(root / "splits", name) for name in SPLITS]) == []


def test_the_order_of_the_classes_is_part_of_the_fingerprint(root: Path) -> None:
    """A class index means another class then, and no checkpoint may be resumed."""
    paths, before = DataPaths(root), read_manifest(root / "splits")["fingerprint"]
    paths.classes.write_text("".join(f"- {emotion}\n" for emotion in reversed(EMOTIONS)))

    remake(root)

    assert read_manifest(root / "splits")["fingerprint"] != before
    assert read_split(root / "splits", "train").emotions == EMOTIONS[::-1]
