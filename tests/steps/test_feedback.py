from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from emotion_assets.steps.feedback.labels import collect_feedback, labelled_accuracy, read_labels
from emotion_assets.steps.ingest.catalogue import ingest_images


def give(root: Path, prediction_id: str, emotion: str) -> None:
    path = root / "feedback" / prediction_id[:2] / f"{prediction_id}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"prediction_id": prediction_id, "emotion": emotion}))


def keep(root: Path, prediction_id: str, content: bytes, day: str = "2026-11-20") -> None:
    path = root / "predictions" / "images" / day / f"{prediction_id}.jpeg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_labelled_images_become_images(tmp_path: Path, faces: list[tuple[str, bytes]]) -> None:
    """Each kept image lands under its label once, whole, and the catalogue accepts it."""
    for number, (_, content) in enumerate(faces[:4]):
        keep(tmp_path, f"aa{number}", content)
    for number, emotion in enumerate(("sad", "happy", "happy")):
        give(tmp_path, f"aa{number}", emotion)
    give(tmp_path, "bb0", "fear")
    places = (tmp_path / "feedback", tmp_path / "predictions", tmp_path / "raw")

    first = collect_feedback(*places)
    second = collect_feedback(*places)

    assert (first.num_labels, first.num_new_files, first.num_without_image) == (4, 3, 1)
    assert (second.num_new_files, second.num_files) == (0, 3)
    assert (tmp_path / "raw" / "Sad" / "feedback" / "aa0.jpeg").read_bytes() == faces[0][1]
    assert ingest_images(tmp_path / "raw", tmp_path / "catalogue").num_files == 3


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"prediction_id": "other", "emotion": "sad"}', '{"emotion": "sad"}']
)
def test_damaged_labels_are_passed_over(tmp_path: Path, content: str) -> None:
    """Torn files, and files that name another prediction, are no labels."""
    path = tmp_path / "aa" / "aa1.json"
    path.parent.mkdir()
    path.write_text(content)

    assert list(read_labels(tmp_path)) == []


def test_a_image_that_somebody_moved_or_deleted_does_not_come_back(
    tmp_path: Path, faces: list[tuple[str, bytes]]
) -> None:
    """People are told to sort out wrong labels by hand; the next collection must not undo it."""
    for number in range(3):
        keep(tmp_path, f"aa{number}", faces[number][1])
        give(tmp_path, f"aa{number}", "sad")
    places = (tmp_path / "feedback", tmp_path / "predictions", tmp_path / "raw")
    collect_feedback(*places)
    moved, deleted, _ = sorted((tmp_path / "raw").rglob("*.jpeg"))
    happy = tmp_path / "raw" / "Happy" / "feedback"
    happy.mkdir(parents=True)
    moved.rename(happy / moved.name)
    deleted.unlink()

    again = collect_feedback(*places)

    assert (again.num_new_files, again.num_files, again.num_set_aside) == (0, 1, 2)
    assert not moved.exists()
    assert not deleted.exists()


def test_performance_needs_labels_and_has_an_interval(tmp_path: Path) -> None:
    """Fifteen of twenty labels agree: three quarters, with an interval around; fewer labels say nothing."""
    table = pd.DataFrame({"prediction_id": [f"aa{i}" for i in range(40)], "emotion": ["happy"] * 40})
    table.assign(reason="random").to_csv(tmp_path / "random.csv")
    table.assign(prediction_id=[f"bb{i}" for i in range(40)], reason="odd").to_csv(tmp_path / "odd.csv")
    requests = {"": tmp_path / "random.csv", "2026-01-02": tmp_path / "odd.csv"}
    for number in range(19):
        give(tmp_path, f"aa{number}", "happy" if number < 15 else "sad")
        give(tmp_path, f"bb{number}", "sad")
    few = labelled_accuracy(requests, tmp_path / "feedback")
    give(tmp_path, "aa19", "fear")
    give(tmp_path, "zz1", "fear")

    enough = labelled_accuracy(requests, tmp_path / "feedback")

    assert (few.num_labels, few.accuracy) == (19, None)
    assert (enough.num_labels, enough.accuracy) == (20, 0.75)
    assert enough.low is not None
    assert enough.high is not None
    assert 0.5 < enough.low < 0.75 < enough.high < 0.95


def test_corrections_are_no_random_sample(tmp_path: Path) -> None:
    """Who corrects unasked corrects mistakes; of the others, those who were asked tell how many there are."""
    ids = [f"{number:02x}" for number in range(100)]
    request = tmp_path / "request.csv"
    pd.DataFrame({"prediction_id": ids, "emotion": "happy", "reason": "random"}).to_csv(request)
    for number in range(60):
        is_correction = number < 10
        path = tmp_path / "feedback" / ids[number] / f"{ids[number]}.json"
        path.parent.mkdir(parents=True)
        emotion = "sad" if is_correction or number % 5 == 0 else "happy"
        moment = f"2026-01-0{1 if is_correction else 3}T12:00:00.000+00:00"
        path.write_text(json.dumps({"prediction_id": ids[number], "emotion": emotion, "time": moment}))

    performance = labelled_accuracy({"2026-01-02T00:00:00.000+00:00": request}, tmp_path / "feedback")

    assert performance.num_labels == 60
    assert performance.accuracy == pytest.approx(0.9 * 0.8)
    assert performance.low is not None
    assert performance.high is not None
    assert performance.low < 0.72 < performance.high <= 0.9
