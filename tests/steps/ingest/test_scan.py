from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from emotion_assets.core.classes import ClassSet
from emotion_assets.core.errors import UnusableDataError
from emotion_assets.steps.ingest.scan import FolderScan, SkipCode, SkippedFile, SourceFile, folder_state, to_int64


def test_scan_yields_labelled_files(raw: Path) -> None:
    """A file has its path, its folder's label and its state."""
    files = [entry for entry in FolderScan(raw) if isinstance(entry, SourceFile)]

    status = (raw / "Angry" / "0.jpg").stat()
    assert len(files) == 15
    assert SourceFile(b"Angry/0.jpg", "angry", status.st_size, status.st_mtime_ns, status.st_ino) in files


def test_scan_skips_with_a_reason(raw: Path, face: bytes, tmp_path: Path) -> None:
    """Links, pipes, sockets, archives and other folders are listed, junk is not, and nothing outside is read."""
    happy = raw / "Happy"
    (happy / "loop").symlink_to(raw)
    (tmp_path / "secret.jpg").write_bytes(face)
    (happy / "outside.jpg").symlink_to(tmp_path / "secret.jpg")
    os.mkfifo(happy / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(happy / "s.jpg"))
    (happy / "folder.jpg").mkdir()
    (happy / "coming.jpg.part").write_bytes(face)
    (happy / ".coming.jpg.Xb3k").write_bytes(face)
    (happy / ".thumbnails").mkdir()
    (happy / ".thumbnails" / "a.jpg").write_bytes(face)
    (happy / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (raw / "Neutral").mkdir()
    (raw / "Neutral" / "x.jpg").write_bytes(face)
    (raw / "delivery.zip").write_bytes(b"PK")
    (raw / "subjects.csv").write_text("path,subject\n")
    (raw / "Subjects.csv").write_text("path,subject\n")
    (happy / "subjects.csv").write_text("path,subject\n")
    (raw / "loose.jpg").write_bytes(face)

    skipped = [entry for entry in FolderScan(raw) if isinstance(entry, SkippedFile)]

    assert {entry.path: entry.code for entry in skipped} == {
        b"Happy/loop": SkipCode.SYMBOLIC_LINK,
        b"Happy/outside.jpg": SkipCode.SYMBOLIC_LINK,
        b"Happy/pipe.jpg": SkipCode.NOT_A_FILE,
        b"Happy/s.jpg": SkipCode.NOT_A_FILE,
        b"Happy/coming.jpg.part": SkipCode.UNFINISHED_COPY,
        b"Neutral/x.jpg": SkipCode.OTHER_CLASS,
        b"delivery.zip": SkipCode.PACKED_ARCHIVE,
        b"Subjects.csv": SkipCode.PACKED_ARCHIVE,
        b"Happy/subjects.csv": SkipCode.PACKED_ARCHIVE,
        b"loose.jpg": SkipCode.UNLABELLED_FILE,
    }
    assert min(len(entry.reason) for entry in skipped) > 20


@pytest.mark.parametrize(
    ("error", "code"),
    [(PermissionError(13, "Permission denied"), "unreadable_file"), (OSError(5, "I/O error"), "failed_read")],
)
def test_scan_lists_folders_that_cannot_be_read(
    raw: Path, error: OSError, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The walk continues in the other folders."""
    real_scandir = os.scandir

    def fail(path: bytes) -> object:
        if path.endswith(b"/Sad"):
            raise error
        return real_scandir(path)

    monkeypatch.setattr("os.scandir", fail)
    entries = list(FolderScan(raw))

    assert sum(isinstance(entry, SourceFile) for entry in entries) == 12
    assert [(entry.path, entry.code) for entry in entries if isinstance(entry, SkippedFile)] == [(b"Sad", code)]


def test_an_unreadable_root_is_an_error(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise every image would count as removed."""

    def fail(path: bytes) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.scandir", fail)

    with pytest.raises(UnusableDataError, match=r"cannot be read \(Permission denied\). Check its permissions"):
        list(FolderScan(raw))


def test_signature_changes_with_the_files(raw: Path, face: bytes) -> None:
    """A new, touched, removed or now readable file changes it, and nothing else does."""
    before = folder_state(raw)
    assert folder_state(raw) == before
    path = raw / "Happy" / "x.jpg"

    path.write_bytes(face)
    added = folder_state(raw)
    path.chmod(0o600)
    permitted = folder_state(raw)
    os.utime(path, (1, 1))
    touched = folder_state(raw)
    path.unlink()

    assert len({before[0], added[0], permitted[0], touched[0]}) == 4
    assert added.num_files == before.num_files + 1
    assert folder_state(raw) == before
    assert folder_state(raw / "missing") == (f"{0:032x}", f"{0:032x}", 0)


def test_one_signature_leaves_out_labelled_images(raw: Path, face: bytes) -> None:
    """Files in `<Class>/feedback/` do not count when they are excluded."""
    before = folder_state(raw).signature_without_feedback
    (raw / "Happy" / "feedback").mkdir()
    (raw / "Happy" / "feedback" / "x.jpg").write_bytes(face)

    assert folder_state(raw).signature_without_feedback == before
    assert folder_state(raw).signature != before


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("Happy/day 1/1.jpg", "happy"),
        ("Happy/Happy/1.jpg", "happy"),
        ("hapy/1.jpg", SkipCode.UNKNOWN_FOLDER),
        ("hapy/Happy/1.jpg", "happy"),
        ("Happy/hapy/1.jpg", "happy"),
        ("Happy/Sad/1.jpg", SkipCode.CONTRADICTORY_FOLDERS),
        ("Happy/Sad/Happy/1.jpg", SkipCode.CONTRADICTORY_FOLDERS),
        ("Happy/disgust/1.jpg", SkipCode.CONTRADICTORY_FOLDERS),
        ("disgust/1.jpg", SkipCode.OTHER_CLASS),
        ("disgust/Happy/1.jpg", SkipCode.CONTRADICTORY_FOLDERS),
        ("disgust/day 1/1.jpg", SkipCode.OTHER_CLASS),
        ("Happy/labels.csv", SkipCode.PACKED_ARCHIVE),
        ("Happy/faces.ZIP", SkipCode.PACKED_ARCHIVE),
        ("Happy/1.JPG.PART", SkipCode.UNFINISHED_COPY),
        ("Happy/Thumbs.db", None),
        ("Happy/THUMBS.DB", None),
        ("__MACOSX/Happy/1.jpg", None),
        (".cache/Happy/1.jpg", None),
    ],
)
def test_the_nearest_folder_names_the_class(tmp_path: Path, path: str, found: str | None) -> None:
    """Where the folders contradict each other, nothing is guessed; junk is passed over."""
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_bytes(b"x")

    entries = [(entry.path, entry[1]) for entry in FolderScan(tmp_path)]

    assert entries == ([(path.encode(), found)] if found else [])


def test_the_signature_has_the_class(tmp_path: Path) -> None:
    """Another list of classes may read the same folder as another class."""
    (tmp_path / "Happy").mkdir()
    (tmp_path / "Happy" / "1.jpg").write_bytes(b"x")
    lists = [ClassSet.build((name, "other"), {}, {name: ("happy",)}) for name in ("glad", "gay")]

    assert len({folder_state(tmp_path, classes).signature for classes in lists}) == 2


@pytest.mark.parametrize(
    "name", ["Happy/feedback_of_users/1.jpg", "Happy/day 1/feedback/1.jpg", "feedback/Happy/1.jpg"]
)
def test_other_folders_called_feedback_count(tmp_path: Path, name: str) -> None:
    """Only `<Class>/feedback/` holds what people labelled through the service."""
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_bytes(b"x")

    state = folder_state(tmp_path)

    assert state.num_files == 1
    assert state.signature_without_feedback == state.signature


def test_folders_that_vanish_are_passed_over(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_scandir = os.scandir

    def fail(path: bytes) -> object:
        if path.endswith(b"/Sad"):
            raise FileNotFoundError(2, "No such file or directory")
        return real_scandir(path)

    monkeypatch.setattr("os.scandir", fail)
    entries = list(FolderScan(raw))

    assert len(entries) == 12
    assert all(isinstance(entry, SourceFile) for entry in entries)


def test_numbers_fit_into_the_database() -> None:
    """Some file systems have inodes of 64 bits without a sign."""
    assert [to_int64(number) for number in (0, -5, 2**63 - 1, 2**63, 2**64 - 1)] == [0, -5, 2**63 - 1, -(2**63), -1]
