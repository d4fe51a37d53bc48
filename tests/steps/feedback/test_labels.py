from __future__ import annotations

from pathlib import Path

import pytest

from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.feedback.labels import Label, collect_labels, read_labels, stored_images
from emotion_assets.steps.ingest.catalogue import ingest_images
from tests.steps.drift.helpers import write_label


def store_image(paths: DataPaths, prediction_id: str, content: bytes, day: str = "2026-11-20") -> None:
    """Store an image as the service does."""
    path = paths.image_log / day / f"{prediction_id}.jpeg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_labelled_images_become_training_images(tmp_path: Path, faces: list[tuple[str, bytes]]) -> None:
    """Each stored image is copied once under its label, and the ingest accepts it."""
    paths = DataPaths(tmp_path)
    for number, (_, content) in enumerate(faces[:4]):
        store_image(paths, f"aa{number}", content)
    for number, emotion in enumerate(("sad", "happy", "happy")):
        write_label(paths.feedback, f"aa{number}", emotion)
    write_label(paths.feedback, "bb0", "fear")

    first, second = collect_labels(paths), collect_labels(paths)

    assert (first.num_labels, first.num_new_files, first.num_without_image) == (4, 3, 1)
    assert (second.num_new_files, second.num_files) == (0, 3)
    assert first.summary().values["num_new_files"] == 3
    assert (paths.raw / "Sad" / "feedback" / "aa0.jpeg").read_bytes() == faces[0][1]
    assert ingest_images(paths).num_files == 3


def test_labels_follow_a_renamed_class(tmp_path: Path, faces: list[tuple[str, bytes]]) -> None:
    """The model still answers with the old names until one with the new ones is accepted."""
    paths = DataPaths(tmp_path)
    paths.classes.write_text("- Happy\n- {name: blue, folders: [sad]}\n")
    for number, emotion in enumerate(("happy", "sad", "fear")):
        store_image(paths, f"aa{number}", faces[number][1])
        write_label(paths.feedback, f"aa{number}", emotion)

    result = collect_labels(paths)

    assert (result.num_new_files, result.num_of_other_class) == (2, 1)
    assert (paths.raw / "Blue" / "feedback" / "aa1.jpeg").exists()


def test_an_image_that_was_moved_or_deleted_is_not_copied_again(tmp_path: Path, faces: list[tuple[str, bytes]]) -> None:
    """People correct wrong labels by moving files; the next collection must not undo it."""
    paths = DataPaths(tmp_path)
    for number in range(3):
        store_image(paths, f"aa{number}", faces[number][1])
        write_label(paths.feedback, f"aa{number}", "sad")
    collect_labels(paths)
    moved, deleted, _ = sorted(paths.raw.rglob("*.jpeg"))
    happy = paths.raw / "Happy" / "feedback"
    happy.mkdir(parents=True)
    moved.rename(happy / moved.name)
    deleted.unlink()

    again = collect_labels(paths)

    assert (again.num_new_files, again.num_files, again.num_removed_by_user) == (0, 1, 2)
    assert not moved.exists()
    assert not deleted.exists()


def test_labels_have_the_time_when_they_were_given(tmp_path: Path) -> None:
    """The time decides whether a label was requested."""
    write_label(tmp_path, "aa1", "sad", "2025-01-02T00:00:00")

    assert list(read_labels(tmp_path)) == [Label("aa1", "sad", "2025-01-02T00:00:00")]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"prediction_id": "other", "emotion": "sad"}',
        '{"emotion": "sad"}',
        '{"prediction_id": "aa1"}',
        '{"prediction_id": "aa1", "emotion": 3}',
    ],
)
def test_damaged_labels_are_skipped(tmp_path: Path, content: str) -> None:
    """Torn files, and files that name another prediction, are not labels."""
    path = tmp_path / "aa" / "aa1.json"
    path.parent.mkdir()
    path.write_text(content)

    assert list(read_labels(tmp_path)) == []


def test_stored_images_are_found_by_prediction(tmp_path: Path) -> None:
    """Only the folders of days count; a missing image log is empty."""
    paths = DataPaths(tmp_path)
    assert stored_images(paths.image_log) == {}
    store_image(paths, "aa1", b"")
    store_image(paths, "aa2", b"", day="elsewhere")

    assert stored_images(paths.image_log) == {"aa1": paths.image_log / "2026-11-20" / "aa1.jpeg"}


def test_an_image_may_come_after_its_label(tmp_path: Path, face: bytes) -> None:
    """As where the label reaches the data root before the image."""
    paths = DataPaths(tmp_path)
    write_label(paths.feedback, "aa1", "sad")
    before = collect_labels(paths)
    store_image(paths, "aa1", face)

    after = collect_labels(paths)

    assert (before.num_without_image, before.num_new_files) == (1, 0)
    assert (after.num_without_image, after.num_new_files, after.num_removed_by_user) == (0, 1, 0)


def test_a_deleted_image_is_remembered_after_later_labels(tmp_path: Path, face: bytes) -> None:
    """The list of what was copied keeps the earlier ones."""
    paths = DataPaths(tmp_path)
    for name in ("aa1", "aa2"):
        store_image(paths, name, face)
        write_label(paths.feedback, name, "sad")
        collect_labels(paths)
    (paths.raw / "Sad" / "feedback" / "aa1.jpeg").unlink()

    again = collect_labels(paths)

    assert (again.num_new_files, again.num_removed_by_user) == (0, 1)
