from __future__ import annotations

import errno
import io
import os
import re
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.files import (
    csv_rows,
    file_sha256,
    files_below,
    list_files,
    locked,
    remove_temporary_files,
    source_version,
    sync_folder,
    write_atomically,
    write_json,
)


def test_write_atomically_replaces_whole_files(tmp_path: Path) -> None:
    """A second write replaces the first, and no temporary file stays behind."""
    path = tmp_path / "a" / "b.txt"

    write_atomically(path, "one")
    write_atomically(path, b"two")

    assert path.read_text() == "two"
    assert [entry.name for entry in path.parent.iterdir()] == ["b.txt"]


def test_write_atomically_keeps_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk leaves the old content whole and no temporary file."""
    path = tmp_path / "b.txt"
    write_atomically(path, "old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")

    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["b.txt"]


def test_a_full_disk_is_named_with_its_bytes(tmp_path: Path) -> None:
    """Beyond the largest file that is allowed, a real write fails: the message has the path and what did not fit."""
    path = tmp_path / "b.bin"
    code = (
        "import resource; from pathlib import Path; from emotion_assets.core.files import write_atomically\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        f"write_atomically(Path({str(path)!r}), bytes(1_000_000))"
    )

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert run.returncode == 1
    assert re.search(
        rf"File too large after 100,000 bytes, [\d,]+ are free\. Make room.*{re.escape(str(path))}", run.stderr
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """As NFS without its lock daemon answers."""

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", fail)
    with (
        pytest.raises(UnusableDataError, match=f"{tmp_path} is on a file system without locks"),
        locked(tmp_path / "l"),
    ):
        pass


def test_a_file_system_without_flushed_folders_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a mounted share answers; files are written all the same."""
    real = os.fsync

    def fail_for_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr("os.fsync", fail_for_folders)
    for name in ("a", "b"):
        write_atomically(tmp_path / name, b"x")

    assert (tmp_path / "b").read_bytes() == b"x"
    assert caplog.text.count("cannot flush folders") == 1
    assert str(tmp_path) in caplog.text


def test_write_json_rejects_nan(tmp_path: Path) -> None:
    """JSON has no NaN, so none is written."""
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"value": float("nan")})


def test_file_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    """The hash of an empty file is the well-known one."""
    (tmp_path / "empty").touch()

    assert file_sha256(tmp_path / "empty").startswith("e3b0c44298fc1c14")


def test_source_version_follows_the_sources(tmp_path: Path) -> None:
    """Changing a source changes the version; changing another file does not."""
    (tmp_path / "a.py").write_text("x = 1")
    before = source_version(tmp_path)

    (tmp_path / "note.txt").write_text("hello")
    same = source_version(tmp_path)
    (tmp_path / "a.py").write_text("x = 2")

    assert same == before
    assert source_version(tmp_path) != before


def test_files_below_skips_what_is_not_a_regular_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links, pipes and folders without permission, as after `chmod -R 644`, are skipped."""
    for name in ("a/1.jpg", "b/2.jpg", "closed/3.jpg"):
        write_atomically(tmp_path / name, b"x")
    (tmp_path / "a" / "link.jpg").symlink_to(tmp_path / "b" / "2.jpg")
    os.mkfifo(tmp_path / "b" / "pipe.jpg")
    real = Path.lstat

    def denied(path: Path) -> os.stat_result:
        if path.parent.name == "closed":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "lstat", denied)

    assert [path.name for path in files_below(tmp_path)] == ["1.jpg", "2.jpg"]
    assert files_below(tmp_path / "none") == []


def test_remove_temporary_files_leaves_the_others(tmp_path: Path) -> None:
    """Only hidden `.tmp` files go, at any depth."""
    for name in ("a/.x.npy.0a1b.tmp", "a/x.npy", "y.tmp"):
        write_atomically(tmp_path / name, b"x")

    remove_temporary_files(tmp_path)

    assert [path.name for path in files_below(tmp_path)] == ["x.npy", "y.tmp"]


def test_listed_matches_folders_and_files(tmp_path: Path) -> None:
    """Both patterns must match; a missing root has no files."""
    for name in ("2026-11-01/a.jsonl", "2026-11-01/b.txt", "images/a.jsonl", "c.jsonl"):
        write_atomically(tmp_path / name, b"x")

    assert list_files(tmp_path, "????-??-??/*.jsonl") == [tmp_path / "2026-11-01" / "a.jsonl"]
    assert list_files(tmp_path / "none", "*/*") == []


def test_locked_waits_for_the_other_holder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A second holder says at once what it waits for, and gets the lock once the first has released it."""

    def lock() -> bool:
        with locked(tmp_path / ".lock"):
            return True

    with ThreadPoolExecutor(1) as pool:
        with locked(tmp_path / ".lock"):
            waiting = pool.submit(lock)
            with pytest.raises(TimeoutError):
                waiting.result(1)
        assert waiting.result(10)

    assert caplog.messages == [f"Waiting for another run, which holds {tmp_path / '.lock'}"]


def test_a_moved_source_is_another_version(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1")
    before = source_version(tmp_path)
    (tmp_path / "a.py").rename(tmp_path / "b.py")

    assert source_version(tmp_path) != before


def test_write_json_keeps_letters(tmp_path: Path) -> None:
    """For people who read the files."""
    write_json(tmp_path / "x.json", {"name": "Überrascht"})

    assert "Überrascht" in (tmp_path / "x.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_header_tells_the_delimiter(delimiter: str) -> None:
    text = f'a{delimiter}b\n1{delimiter}"2{delimiter}\n3"\n'
    assert list(csv_rows(io.StringIO(text))) == [["a", "b"], ["1", f"2{delimiter}\n3"]]


@pytest.mark.parametrize("function", ["fcntl.flock", "os.fsync"])
def test_other_errors_of_the_disk_are_raised(tmp_path: Path, function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing disk is not a file system without locks."""

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(function, fail)

    def use() -> None:
        with locked(tmp_path / "l"):
            sync_folder(tmp_path)

    with pytest.raises(OSError, match="Input/output error"):
        use()


@pytest.mark.parametrize("error", [FileNotFoundError(2, "gone"), PermissionError(13, "Permission denied")])
@pytest.mark.parametrize("closed", ["a", "b", "c"])
def test_a_folder_that_cannot_be_listed_is_empty(
    tmp_path: Path, error: OSError, closed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was removed in this moment, or belongs to another user."""
    for name in ("a/a.txt", "b/b.txt", "c/c.txt"):
        write_atomically(tmp_path / name, b"x")
    real = os.scandir

    def scandir(path: str) -> object:
        if os.path.basename(path) == closed:
            raise error
        return real(path)

    monkeypatch.setattr("os.scandir", scandir)

    assert sorted(path.stem for path in list_files(tmp_path, "*/*.txt")) == sorted({*"abc"} - {closed})


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_every_full_disk_is_named(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync", fail)

    with pytest.raises(OSError, match=r"after 3 bytes, .* are free. Make room"):
        write_atomically(tmp_path / "b.txt", "new")
