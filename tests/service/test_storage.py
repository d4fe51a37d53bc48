from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from emotion_assets.core.remote import RemoteRoot
from emotion_service.settings import Settings
from emotion_service.storage import LocalStorage, open_storage


def test_an_object_is_created_once(tmp_path: Path) -> None:
    """Of many writers one wins, and nothing else is left."""
    storage = LocalStorage(tmp_path)

    def create(number: int) -> bool:
        try:
            storage.create("feedback/ab/x.json", b"%d" % number)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        winners = [number for number, won in enumerate(threads.map(create, range(40))) if won]

    assert [storage.read("feedback/ab/x.json")] == [b"%d" % number for number in winners]
    assert storage.keys("feedback") == ["feedback/ab/x.json"]
    assert storage.exists("feedback/ab/x.json")
    assert not storage.exists("feedback/ab/y.json")


def test_hidden_files_are_private(tmp_path: Path) -> None:
    LocalStorage(tmp_path).create("feedback/.key", b"secret")
    assert (tmp_path / "feedback" / ".key").stat().st_mode & 0o077 == 0


def test_what_is_missing_is_empty_or_an_error(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    assert storage.keys("feedback") == []
    with pytest.raises(FileNotFoundError):
        storage.read("feedback/.key")


def test_a_folder_is_the_storage_by_default(tmp_path: Path) -> None:
    assert isinstance(open_storage(Settings(data_dir=tmp_path)), LocalStorage)


def test_an_address_is_in_object_storage(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOTION_DATA_DIR", s3_root)
    storage = open_storage(Settings.load())
    assert isinstance(storage, RemoteRoot)
    storage.create("feedback/.key", b"secret")
    assert open_storage(Settings.load()).read("feedback/.key") == b"secret"
