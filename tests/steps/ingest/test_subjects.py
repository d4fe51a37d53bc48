from __future__ import annotations

import logging
from pathlib import Path

import pytest

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.layout import DataPaths
from emotion_assets.demo.faces import draw_frame
from emotion_assets.steps.ingest.catalogue import ingest_images
from emotion_assets.steps.ingest.export import read_catalogue
from emotion_assets.steps.ingest.store import STORE_NAME, Store
from emotion_assets.steps.ingest.subjects import find_subjects


def subjects(root: Path) -> dict[str, str]:
    """Ingest, and return the subject of each path that has one."""
    ingest_images(DataPaths(root), num_workers=1)
    table = read_catalogue(root / "catalogue").dropna(subset="subject")
    return dict(zip(table["path"], table["subject"], strict=True))


def put(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        path = root / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw_frame("happy", number, 0))


@pytest.mark.parametrize(
    ("folder", "subject"),
    [
        ("subject_07/happy", "subject 07"),
        ("Happy/Subject-07", "subject 07"),
        ("person12/happy", "person12"),
        ("train/participant=Anna/happy", "participant anna"),
        ("subject=x/person_A1/happy", "person a1"),
        ("person smiling/happy", None),
        ("person_faces/happy", None),
        ("person_crops_256/happy", None),
        ("subject_7b/happy", "subject 7b"),
        ("happy/subjects", None),
        ("happy/persons of interest", None),
        ("happy/person", None),
    ],
)
def test_folders_name_subjects(tmp_path: Path, folder: str, subject: str | None) -> None:
    """The nearest folder counts; without a number or an equals sign it names nobody."""
    put(tmp_path, f"{folder}/1.jpg")

    assert subjects(tmp_path) == ({f"{folder}/1.jpg": subject} if subject else {})


def test_a_table_names_subjects(tmp_path: Path) -> None:
    """Paths of files come before those of folders, and both before folders' names; `raw/` in front does not matter."""
    put(
        tmp_path, "anna/happy/1.jpg", "anna/happy/2.jpg", "studio/happy/ä 1.jpg", "subject_3/happy/1.jpg", "happy/1.jpg"
    )
    rows = ("anna,Anna", "raw//anna/happy/2.jpg,Ben", "studio\\happy\\a\u0308 1.jpg , Cem ", "subject_3,ANNA")
    (tmp_path / "subjects.csv").write_text("﻿Path, Subject\n" + "\n".join(rows) + "\n", encoding="utf-8")

    assert subjects(tmp_path) == {
        "anna/happy/1.jpg": "anna",
        "anna/happy/2.jpg": "ben",
        "studio/happy/ä 1.jpg": "cem",
        "subject_3/happy/1.jpg": "anna",
    }


def test_two_subjects_of_one_image_are_both_known(tmp_path: Path) -> None:
    """A picture of two persons."""
    put(tmp_path, "happy/1.jpg")
    (tmp_path / "subjects.csv").write_text("path,subject\nhappy/1.jpg,anna\nhappy/1.jpg,ben\n")
    ingest_images(DataPaths(tmp_path), num_workers=1)

    with Store(tmp_path / "catalogue" / STORE_NAME) as store:
        assert list(find_subjects(store, DataPaths(tmp_path)).by_content.values()) == [{"anna", "ben"}]


def test_a_table_may_come_with_the_images_and_change(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The catalogue shows the present table; rows that name no file are counted."""
    put(tmp_path, "a/happy/1.jpg", "b/happy/1.jpg")
    table = tmp_path / "raw" / "subjects.csv"
    table.write_text("path,subject\na,1\nc,3\n")
    with caplog.at_level(logging.WARNING):
        before = subjects(tmp_path)
    table.write_text("path,subject\na,1\nb,2\n")

    assert before == {"a/happy/1.jpg": "1"}
    assert "1 paths in subjects.csv name no file in raw/, such as c." in caplog.text
    assert subjects(tmp_path) == {"a/happy/1.jpg": "1", "b/happy/1.jpg": "2"}

    table.unlink()
    assert subjects(tmp_path) == {}


def test_a_table_of_subjects_changes_the_data_version(tmp_path: Path) -> None:
    """The splits depend on it, so Dagster has to show them as stale."""
    put(tmp_path, "a/happy/1.jpg")
    without = ingest_images(DataPaths(tmp_path), num_workers=1)
    (tmp_path / "subjects.csv").write_text("path,subject\na,1\n")

    assert ingest_images(DataPaths(tmp_path), num_workers=1).fingerprint != without.fingerprint
    (tmp_path / "subjects.csv").unlink()
    assert ingest_images(DataPaths(tmp_path), num_workers=1).fingerprint == without.fingerprint


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_columns_may_be_separated_as_excel_does(tmp_path: Path, delimiter: str) -> None:
    put(tmp_path, "happy/1,5.jpg")
    (tmp_path / "subjects.csv").write_text(f"path{delimiter}subject\nhappy/1,5.jpg{delimiter}Anna\n")

    assert subjects(tmp_path) == {"happy/1,5.jpg": "anna"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file,person\na,1\n", "has no column path and no column subject. Begin it with the line `path,subject`"),
        (b"", "has no column path"),
        (b'path,subject\n"a,1\n', "unexpected end of data"),
        (b"path,subject\n\xff,1\n", "Save it as CSV in UTF-8"),
    ],
)
def test_a_wrong_table_is_explained(tmp_path: Path, content: bytes, message: str) -> None:
    put(tmp_path, "happy/1.jpg")
    (tmp_path / "subjects.csv").write_bytes(content)

    with pytest.raises(UnusableDataError, match=r"subjects\.csv") as error:
        subjects(tmp_path)

    assert message in str(error.value)


def test_incomplete_rows_name_nobody(tmp_path: Path) -> None:
    """Spreadsheets leave blank lines and empty cells; one empty subject would tie all of these images together."""
    put(tmp_path, "happy/1.jpg", "happy/2.jpg", "happy/3.jpg")
    (tmp_path / "subjects.csv").write_text("path,subject\n\nhappy/1.jpg\nhappy/2.jpg,\n,ben\n./happy/3.jpg,anna\n")
    ingest_images(DataPaths(tmp_path), num_workers=1)

    with Store(tmp_path / "catalogue" / STORE_NAME) as store:
        assert list(find_subjects(store, DataPaths(tmp_path)).by_content.values()) == [{"anna"}]
