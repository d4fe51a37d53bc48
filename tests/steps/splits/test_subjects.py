"""Recordings: frames of one person train, and several persons are never in two splits."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.layout import DataPaths
from emotion_assets.demo.faces import draw_dataset, draw_face, draw_frame
from emotion_assets.steps.ingest.catalogue import ingest_images
from emotion_assets.steps.splits.assignment import SPLITS
from emotion_assets.steps.splits.checks import find_leaking_images, find_leaking_subjects
from emotion_assets.steps.splits.make import LEDGER_NAME, SplitReport, make_splits
from emotion_assets.steps.splits.splits import read_assignments, read_split


def record(
    root: Path, *people: int, folder: str = "subject_{}", num_frames: int = 40, movement: float = 0.3
) -> DataPaths:
    """Draw the recordings of some people, below a folder for each."""
    paths = DataPaths(root)
    for person in people:
        for emotion in EMOTIONS:
            for number in range(num_frames):
                path = paths.raw / folder.format(person) / emotion / f"{number}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(draw_frame(emotion, person, number, movement=movement))
    return paths


def remake(paths: DataPaths) -> SplitReport:
    ingest_images(paths, num_workers=1)
    return make_splits(paths)


def splits_of(paths: DataPaths) -> dict[str, set[str]]:
    """Return the splits of each subject."""
    table = read_assignments(paths.splits).dropna(subset=["subject", "split"])
    return {str(subject): set(rows["split"]) for subject, rows in table.groupby("subject")}


@pytest.mark.parametrize("folder", ["subject_{}", "me"])
@pytest.mark.parametrize("movement", [0.0, 1.0])
def test_one_person_is_divided_with_a_warning(tmp_path: Path, folder: str, movement: float) -> None:
    """No frame is thrown away as a label conflict, every split has every class, and the checks say what that means."""
    paths = record(tmp_path, 1, folder=folder, movement=movement)

    report = remake(paths)

    leaks = find_leaking_subjects(paths) if "subject" in folder else find_leaking_images(paths)
    assert report.num_label_conflicts == report.num_spanning_splits == 0
    assert report.holds_every_class
    assert {split: set(counts.values()) for split, counts in report.counts.items()} == {
        "train": {32},
        "val": {4},
        "test": {4},
    }
    assert report.num_divided > 150
    assert "fewer than three groups" in leaks.problem
    assert not leaks.is_error


@pytest.mark.parametrize("num_people", [3, 4, 5, 8])
def test_people_stay_together(tmp_path: Path, num_people: int) -> None:
    """Every split has its own people, and every class; the checks find nothing."""
    paths = record(tmp_path, *range(num_people), num_frames=6)

    report = remake(paths)

    found = splits_of(paths)
    assert len(found) == num_people == report.num_subjects
    assert all(len(splits) == 1 for splits in found.values())
    assert report.holds_every_class
    assert (report.num_divided, report.num_label_conflicts) == (0, 0)
    assert not find_leaking_subjects(paths).problem
    assert not find_leaking_images(paths).problem


def test_new_images_follow_their_subject_for_ever(tmp_path: Path) -> None:
    """Even after all older images of the subject are gone; the ledger does not name anybody."""
    paths = record(tmp_path, *range(5), num_frames=5)
    remake(paths)
    before = splits_of(paths)
    for emotion in EMOTIONS:
        for path in (paths.raw / "subject_2" / emotion).glob("*.jpg"):
            path.write_bytes(draw_frame(emotion, 2, 100 + int(path.stem), movement=3))

    remake(paths)

    assert splits_of(paths) == before
    assert "subject_2" not in (paths.splits / LEDGER_NAME).read_text()


def test_subjects_that_are_named_late_are_assigned_anew(tmp_path: Path) -> None:
    """Images without a subject stay; nothing is left out, and every split has every class."""
    paths, rng = DataPaths(tmp_path), np.random.default_rng(0)
    for emotion in EMOTIONS:
        for number in range(30):
            path = paths.raw / emotion / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(draw_face(emotion, rng))
    remake(paths)
    before = read_assignments(paths.splits).set_index("content_hash")["split"]
    rows = [f"{emotion}/{number}.jpg,{number // 5}\n" for emotion in EMOTIONS for number in range(25)]
    (tmp_path / "subjects.csv").write_text("path,subject\n" + "".join(rows))

    report = remake(paths)

    table = read_assignments(paths.splits).set_index("content_hash")
    others = table.index[table["subject"].isna()]
    assert all(len(splits) == 1 for splits in splits_of(paths).values())
    assert (table.loc[others, "split"] == before[others]).all()
    assert (report.num_spanning_splits, report.holds_every_class) == (0, True)
    assert not find_leaking_subjects(paths).problem
    assert remake(paths).num_new == 0


@pytest.mark.parametrize("folder", ["subject_{}", "film_{}"])
@pytest.mark.parametrize("steps", [(1, 3), (1, 2, 3), (1, 4), (2, 5)])
def test_people_may_be_added_to_a_recording(tmp_path: Path, steps: tuple[int, ...], folder: str) -> None:
    """What was divided is joined again, so that no image is lost and every split has its own people."""
    for num_people in steps:
        paths = record(tmp_path, *range(num_people), num_frames=15, folder=folder)
        report = remake(paths)

    assert report.num_spanning_splits == report.num_divided == 0
    assert report.holds_every_class
    assert sum(sum(counts.values()) for counts in report.counts.values()) == 15 * 5 * steps[-1]
    assert not find_leaking_images(paths).problem
    assert not find_leaking_subjects(paths).problem


def test_people_may_be_removed(tmp_path: Path) -> None:
    """One of three remains, and is divided."""
    paths = record(tmp_path, 0, 1, 2, num_frames=15)
    remake(paths)
    for number in (0, 1):
        shutil.rmtree(paths.raw / f"subject_{number}")

    report = remake(paths)

    assert report.holds_every_class
    assert report.num_divided == 75
    assert remake(paths).num_new == 0


@pytest.mark.parametrize("folder", ["subject_1", "me"])
def test_a_public_set_may_be_added_to_a_recording(tmp_path: Path, folder: str) -> None:
    """The recording is then one group among many: all of it is in one split, and none is lost."""
    paths = record(tmp_path, 1, folder=folder, num_frames=20, movement=0)
    remake(paths)
    draw_dataset(paths, num_per_class=20, seed=0)

    report = remake(paths)

    assert report.num_spanning_splits == 0
    assert report.counts["train"]["happy"] >= 20
    assert report.holds_every_class
    assert not find_leaking_images(paths).problem


def test_a_planted_subject_is_found(tmp_path: Path) -> None:
    """The check does not believe the table of assignments: it looks at folders and tables again."""
    paths = record(tmp_path, *range(5), num_frames=3)
    remake(paths)
    everybody = "".join(f"subject_{number},one\n" for number in range(5))
    (tmp_path / "subjects.csv").write_text(f"path,subject\n{everybody}")

    leaks = find_leaking_subjects(paths)

    assert "1 subjects are in two splits" in leaks.problem
    assert leaks.is_error
    assert leaks.rows == [{"subject": "one", "splits": ", ".join(sorted(SPLITS))}]


def test_a_large_set_is_not_divided_for_one_recording(tmp_path: Path) -> None:
    """Only the groups of a class that would be missing are divided; all others stay together."""
    paths, rng = record(tmp_path, 1, folder="film", num_frames=0), np.random.default_rng(0)
    for emotion in EMOTIONS[:4]:
        for number in range(12):
            path = paths.raw / emotion / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(draw_face(emotion, rng))
    for number in range(12):
        path = paths.raw / "film" / "surprise" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw_frame("surprise", 1, number, movement=0))

    report = remake(paths)

    table = read_assignments(paths.splits)
    assert set(table.loc[table["is_divided"], "label"]) == {"surprise"}
    assert report.holds_every_class
    assert len(read_split(paths.splits, "train").pixels) == report.summary().values["num_train"]


def test_a_table_that_names_no_file_is_noticed(tmp_path: Path) -> None:
    """The subjects would silently be unknown, and the check green."""
    paths = record(tmp_path, *range(4), folder="film_{}", num_frames=10)
    (tmp_path / "subjects.csv").write_text("path,subject\ndata/raw/film_1,anna\n")
    remake(paths)

    leaks = find_leaking_subjects(paths)

    assert "1 paths in subjects.csv name no file in raw/, such as data/raw/film_1" in leaks.problem
    assert not leaks.is_error
