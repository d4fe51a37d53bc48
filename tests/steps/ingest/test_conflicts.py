from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from PIL import Image

from emotion_assets.core.layout import FEEDBACK_IMAGES, DataPaths
from emotion_assets.demo.faces import draw_dataset, draw_frame
from emotion_assets.steps.ingest.catalogue import ingest_images
from emotion_assets.steps.ingest.conflicts import MAX_COPIES, resolve_labels
from emotion_assets.steps.ingest.export import read_catalogue
from emotion_assets.steps.ingest.store import STORE_NAME, Store
from emotion_assets.steps.splits.make import make_splits
from emotion_assets.steps.splits.splits import read_split


def conflicting(root: Path) -> set[str]:
    """Ingest, and return the paths that are marked."""
    ingest_images(DataPaths(root), num_workers=1)
    table = read_catalogue(root / "catalogue")
    return set(table.loc[table["has_label_conflict"], "path"])


@pytest.mark.parametrize("is_copy", [True, False])
def test_a_label_through_the_service_removes_nothing(tmp_path: Path, *, is_copy: bool) -> None:
    """Whoever labels a copy of a test image otherwise has their copy set aside; the image stays in its split."""
    paths = DataPaths(tmp_path)
    draw_dataset(paths, num_per_class=12, seed=0)
    ingest_images(paths, num_workers=1)
    make_splits(paths)
    before = read_split(paths.splits, "test").content_hashes
    for path in (paths.raw / "Happy").rglob("*.jpg"):
        target = paths.raw / "Sad" / FEEDBACK_IMAGES / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if is_copy:
            shutil.copyfile(path, target)
        else:
            Image.open(path).save(target.with_suffix(".png"))

    marked = conflicting(tmp_path)

    make_splits(paths)
    assert len(marked) == 12
    assert all(path.startswith("Sad/feedback/") for path in marked)
    assert read_split(paths.splits, "test").content_hashes == before


def test_labels_through_the_service_may_contradict_each_other(tmp_path: Path) -> None:
    """Then neither is used, as between delivered images."""
    for emotion in ("Sad", "Happy"):
        path = tmp_path / "raw" / emotion / FEEDBACK_IMAGES / "1.jpg"
        path.parent.mkdir(parents=True)
        path.write_bytes(draw_frame("happy", 1, 0))

    assert conflicting(tmp_path) == {"Sad/feedback/1.jpg", "Happy/feedback/1.jpg"}


def test_a_folder_of_the_users_own_called_feedback_is_delivered(tmp_path: Path) -> None:
    """Only the folder that the pipeline writes is special."""
    for folder in ("Happy", "Sad/feedback/more"):
        path = tmp_path / "raw" / folder / "1.jpg"
        path.parent.mkdir(parents=True)
        path.write_bytes(draw_frame("happy", 1, 0))

    assert conflicting(tmp_path) == {"Happy/1.jpg", "Sad/feedback/more/1.jpg"}


@pytest.mark.parametrize(("num_frames", "is_recording"), [(MAX_COPIES // 2, False), (MAX_COPIES // 2 + 1, True)])
def test_a_large_group_is_a_recording(tmp_path: Path, num_frames: int, *, is_recording: bool) -> None:
    """A photograph has a few copies, whose labels conflict; a recording has many frames, which do not."""
    for emotion in ("happy", "sad"):
        for number in range(num_frames):
            path = tmp_path / "raw" / emotion / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(
                draw_frame("happy" if number % 2 else "sad", 1, number + (emotion == "sad") * 100, movement=0)
            )

    assert bool(conflicting(tmp_path)) != is_recording


def test_frames_of_a_subject_do_not_conflict(tmp_path: Path) -> None:
    """Two similar frames of one person are two expressions; the same file under two labels is a mistake."""
    for folder, content in (
        ("happy/subject_1/1.jpg", draw_frame("happy", 1, 0, movement=0)),
        ("sad/subject_1/1.jpg", draw_frame("happy", 1, 1, movement=0)),
        ("happy/subject_1/same.jpg", draw_frame("happy", 2, 0)),
        ("sad/subject_1/same.jpg", draw_frame("happy", 2, 0)),
    ):
        path = tmp_path / "raw" / folder
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    assert conflicting(tmp_path) == {"happy/subject_1/same.jpg", "sad/subject_1/same.jpg"}
    with Store(tmp_path / "catalogue" / STORE_NAME) as store:
        assert len(resolve_labels(store, {}).conflicting) == 3


def test_a_mirrored_copy_with_another_label_conflicts(tmp_path: Path) -> None:
    original = draw_frame("happy", 3, 0)
    file = io.BytesIO()
    Image.open(io.BytesIO(original)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(file, "PNG")
    for name, content in (("happy/1.jpg", original), ("sad/1.png", file.getvalue())):
        path = tmp_path / "raw" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)

    assert conflicting(tmp_path) == {"happy/1.jpg", "sad/1.png"}


def test_near_duplicates_of_two_persons_conflict(tmp_path: Path) -> None:
    """Only frames of the same subject are two expressions."""
    for number, folder in enumerate(("happy/subject_1", "sad/subject_2", "angry")):
        path = tmp_path / "raw" / folder / "1.jpg"
        path.parent.mkdir(parents=True)
        path.write_bytes(draw_frame("happy", 1, number, movement=0))

    assert conflicting(tmp_path) == {"happy/subject_1/1.jpg", "sad/subject_2/1.jpg", "angry/1.jpg"}


def test_a_removed_near_duplicate_conflicts_no_more(tmp_path: Path) -> None:
    """Once a person has kept the right one, it is used."""
    for number, emotion in enumerate(("happy", "sad")):
        path = tmp_path / "raw" / emotion / "1.jpg"
        path.parent.mkdir(parents=True)
        path.write_bytes(draw_frame("happy", 1, number, movement=0))
    assert len(conflicting(tmp_path)) == 2

    (tmp_path / "raw" / "sad" / "1.jpg").unlink()

    assert conflicting(tmp_path) == set()
