"""Commits to object storage: whole states, no lost update, and no work of a killed process in the way."""

from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path

import pytest

from emotion_assets.core.errors import ChangedElsewhereError
from emotion_assets.core.remote import RemoteRoot, open_store
from tests.core.remote_hosts import commit, files, host, objects, write
from tests.object_storage import turn_versions_on


def test_what_one_host_commits_another_checks_out(s3_root: str, tmp_path: Path) -> None:
    """Files are added, changed and removed."""
    first, second = host(s3_root, tmp_path, "first"), host(s3_root, tmp_path, "second")
    second.checkout("splits")
    write(first, "splits/train/pixels.npy", "1")
    write(first, "splits/manifest.json", "1")
    first.commit("splits")
    second.checkout("splits")
    assert files(second, "splits") == {"train/pixels.npy": "1", "manifest.json": "1"}

    write(second, "splits/manifest.json", "22")
    (second.local / "splits/train/pixels.npy").unlink()
    second.commit("splits")
    first.checkout("splits")

    assert files(first, "splits") == {"manifest.json": "22"}


@pytest.mark.parametrize("has_versions", [False, True], ids=["plain", "versions"])
def test_of_two_changes_to_one_file_the_second_is_refused(
    s3_root: str, s3_server: str, tmp_path: Path, has_versions: bool
) -> None:
    """It starts again on the first one's result; what it had changed is gone, and nothing is left of its upload."""
    if has_versions:
        turn_versions_on(s3_root, s3_server)
    first, second = host(s3_root, tmp_path, "first"), host(s3_root, tmp_path, "second")
    write(first, "catalogue/images.sqlite", "base")
    first.commit("catalogue")
    second.checkout("catalogue")
    write(first, "catalogue/images.sqlite", "first")
    write(second, "catalogue/images.sqlite", "second, longer")
    first.commit("catalogue")

    with pytest.raises(ChangedElsewhereError, match="has changed catalogue/images"):
        second.commit("catalogue")

    second.checkout("catalogue")
    assert files(second, "catalogue") == {"images.sqlite": "first"}
    kept = [key for key in second.keys("catalogue") if "images.sqlite" in key]
    assert len(kept) == 2  # the present one, and the one that somebody may be reading


def test_changes_to_different_files_are_merged(s3_root: str, tmp_path: Path) -> None:
    first, second = host(s3_root, tmp_path, "first"), host(s3_root, tmp_path, "second")
    write(first, "models/champion.json", "none")
    first.commit("models")
    second.checkout("models")
    write(first, "models/v1/model.onnx", "1")
    write(second, "models/v2/model.onnx", "2")
    first.commit("models")
    second.commit("models")

    first.checkout("models")

    assert files(first, "models") == {"champion.json": "none", "v1/model.onnx": "1", "v2/model.onnx": "2"}


def test_hosts_in_step_lose_nothing(s3_root: str, tmp_path: Path) -> None:
    """Four hosts commit at the same moment, ten times: all forty files are there."""
    hosts = [host(s3_root, tmp_path, f"host{number}") for number in range(4)]
    barrier = threading.Barrier(len(hosts))
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for step in range(10):
                write(hosts[number], f"models/{number}-{step}", "x")
                barrier.wait(60)
                for attempt in range(20):
                    try:
                        hosts[number].commit("models")
                        break
                    except ChangedElsewhereError:
                        assert attempt < 19
        except BaseException as error:  # noqa: BLE001 -- raised by the test itself
            failures.append(error)
            barrier.abort()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    hosts[0].checkout("models")
    assert len(files(hosts[0], "models")) == 40


def test_a_killed_step_leaves_its_work_or_nothing(s3_root: str, tmp_path: Path) -> None:
    """What was not committed continues on the same host, unless another host was faster."""
    first, second = host(s3_root, tmp_path, "first"), host(s3_root, tmp_path, "second")
    write(first, "catalogue/images.sqlite", "base")
    first.commit("catalogue")
    write(first, "catalogue/images.sqlite", "half an ingest")
    first.checkout("catalogue")
    assert files(first, "catalogue") == {"images.sqlite": "half an ingest"}

    write(first, "catalogue/images.sqlite-wal", "of that database")
    second.checkout("catalogue")
    write(second, "catalogue/images.sqlite", "the other host")
    second.commit("catalogue")
    first.checkout("catalogue")

    assert files(first, "catalogue") == {"images.sqlite": "the other host"}


def test_a_stale_journal_is_not_applied(s3_root: str, tmp_path: Path) -> None:
    """A real database with a journal of a killed process is replaced together with it."""
    first, second = host(s3_root, tmp_path, "first"), host(s3_root, tmp_path, "second")
    for root, value in ((first, 1), (second, 2)):
        (root.local / "catalogue").mkdir(parents=True)
        with sqlite3.connect(root.local / "catalogue" / "images.sqlite") as connection:
            connection.execute("CREATE TABLE numbers (value)")
            connection.execute("INSERT INTO numbers VALUES (?)", (value,))
        connection.close()
    first.commit("catalogue")
    second.checkout("catalogue")
    (second.local / "catalogue" / "images.sqlite-wal").write_bytes(b"stale")
    second.checkout("catalogue")

    with sqlite3.connect(second.local / "catalogue" / "images.sqlite") as connection:
        assert connection.execute("SELECT value FROM numbers").fetchall() == [(1,)]
    connection.close()


def test_a_kill_between_upload_and_head_leaves_the_old_state(
    s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = host(s3_root, tmp_path, "first"), host(s3_root, tmp_path, "second")
    write(first, "splits/a", "old")
    write(first, "splits/b", "old")
    first.commit("splits")
    write(first, "splits/a", "newer")
    write(first, "splits/b", "newer")
    store = open_store(s3_root)

    class Killed:
        def put(self, key: str, *args: object, **kwargs: object) -> object:
            if "/b." in key:
                raise KeyboardInterrupt
            return store.put(key, *args, **kwargs)

        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

    with monkeypatch.context() as patch:
        patch.setattr("emotion_assets.core.remote.open_store", lambda url: Killed())
        with pytest.raises(KeyboardInterrupt):
            host(s3_root, tmp_path, "first").commit("splits")

    second.checkout("splits")
    assert files(second, "splits") == {"a": "old", "b": "old"}
    host(s3_root, tmp_path, "first").commit("splits")
    second.checkout("splits")
    assert files(second, "splits") == {"a": "newer", "b": "newer"}


def test_only_some_files_are_fetched(s3_root: str, tmp_path: Path) -> None:
    first, second = host(s3_root, tmp_path, "first"), host(s3_root, tmp_path, "second")
    for name in ("champion.json", "v1/model", "v2/model"):
        write(first, f"models/{name}", name)
    first.commit("models")

    second.checkout("models", only=("champion.json",))
    second.checkout("models", only=("v2/",))

    assert set(files(second, "models")) == {"champion.json", "v2/model"}


def test_a_commit_whose_answer_was_lost_counts(s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The storage took the head and failed to say so; the next attempt is refused by our own head."""
    from obstore.exceptions import PreconditionError

    store = open_store(s3_root)

    class LosesAnswers:
        def put(self, key: str, *args: object, **kwargs: object) -> object:
            answer = store.put(key, *args, **kwargs)
            if key.endswith("_head.json"):
                raise PreconditionError
            return answer

        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

    first, second = host(s3_root, tmp_path, "first"), host(s3_root, tmp_path, "second")
    write(first, "splits/a", "old")
    first.commit("splits")
    write(first, "splits/a", "newer")
    with monkeypatch.context() as patch:
        patch.setattr("emotion_assets.core.remote.open_store", lambda url: LosesAnswers())
        host(s3_root, tmp_path, "first").commit("splits")

    second.checkout("splits")
    assert files(second, "splits") == {"a": "newer"}


def test_a_failed_upload_leaves_no_objects(s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(s3_root)

    class Fails:
        def put(self, key: str, *args: object, **kwargs: object) -> object:
            if "/b." in key:
                raise OSError(28, "No space left on device")
            return store.put(key, *args, **kwargs)

        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

    monkeypatch.setattr("emotion_assets.core.remote.open_store", lambda url: Fails())
    root = host(s3_root, tmp_path, "host")
    write(root, "splits/a", "1")
    write(root, "splits/b", "2")
    with pytest.raises(OSError, match="No space left"):
        root.commit("splits")

    assert root.keys("splits") == []


@pytest.mark.parametrize("path", ["../../../escaped.txt", "/escaped.txt", "a/../../b"])
def test_a_head_names_no_files_elsewhere(s3_root: str, tmp_path: Path, path: str) -> None:
    """Whoever can write to the bucket must not write to the disks of all hosts."""
    store = open_store(s3_root)
    store.put("models/x.1", b"x")
    store.put("models/_head.json", json.dumps({"keys": {path: "models/x.1"}, "dropped": []}).encode())

    with pytest.raises(OSError, match="names files elsewhere"):
        RemoteRoot(s3_root, tmp_path / "copy").checkout("models")


def test_a_lost_file_is_fetched_again(s3_root: str, tmp_path: Path) -> None:
    first, second = host(s3_root, tmp_path, "first"), host(s3_root, tmp_path, "second")
    commit(first, "splits/a", "1")
    second.checkout("splits")
    (second.local / "splits/a").unlink()

    second.checkout("splits")

    assert files(second, "splits") == {"a": "1"}


def test_who_changed_nothing_commits_nothing(s3_root: str, tmp_path: Path) -> None:
    """Not even if another host has committed since; and nothing that is fetched is uploaded again."""
    first, second = host(s3_root, tmp_path, "first"), host(s3_root, tmp_path, "second")
    commit(first, "splits/a", "1")
    second.checkout("splits")
    commit(first, "splits/a", "22")
    before = first.keys("splits")

    second.commit("splits")

    assert first.keys("splits") == before


def test_a_file_that_another_host_changed_is_not_removed(s3_root: str, tmp_path: Path) -> None:
    first, second = host(s3_root, tmp_path, "first"), host(s3_root, tmp_path, "second")
    commit(first, "models/a", "1")
    second.checkout("models")
    (second.local / "models/a").unlink()
    commit(first, "models/a", "22")

    with pytest.raises(ChangedElsewhereError, match="has changed models/a"):
        second.commit("models")

    second.checkout("models")
    assert files(second, "models") == {"a": "22"}


def test_a_removal_alone_is_committed_once(s3_root: str, tmp_path: Path) -> None:
    """The next commit does not take it for a change of another host."""
    first, second = host(s3_root, tmp_path, "first"), host(s3_root, tmp_path, "second")
    commit(first, "models/a", "1")
    commit(first, "models/b", "1")
    second.checkout("models")
    (first.local / "models/a").unlink()
    first.commit("models")
    second.checkout("models")
    assert files(second, "models") == {"b": "1"}

    commit(first, "models/c", "1")
    second.checkout("models")

    assert files(second, "models") == {"b": "1", "c": "1"}


def test_replaced_objects_are_deleted_one_commit_later(s3_root: str, tmp_path: Path) -> None:
    """Otherwise every version of every file would be kept for ever."""
    root = host(s3_root, tmp_path, "host")
    for number in range(4):
        commit(root, "splits/a", "1" * (number + 1))

    assert len([key for key in root.keys("splits") if key.startswith("splits/a.")]) == 2


def test_a_commit_that_is_repeated_leaves_no_objects(
    s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another host commits between the upload and the head."""
    other, store = host(s3_root, tmp_path, "other"), open_store(s3_root)

    class Slow:
        is_late = True

        def put(self, key: str, *args: object, **kwargs: object) -> object:
            if key.endswith("_head.json") and self.is_late:
                self.is_late = False
                commit(other, "models/b", "other")
            return store.put(key, *args, **kwargs)

        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

    monkeypatch.setattr("emotion_assets.core.remote.open_store", lambda url: Slow())
    commit(host(s3_root, tmp_path, "host"), "models/a", "host")

    other.checkout("models")
    assert files(other, "models") == {"a": "host", "b": "other"}
    assert len(other.keys("models")) == 3


def test_temporary_and_private_files_stay_here(s3_root: str, tmp_path: Path) -> None:
    root = host(s3_root, tmp_path, "host")
    for path in ("splits/.lock", "splits/.private/a", "splits/train/.a.tmp", "predictions/.private/a"):
        write(root, path, "here")
    commit(root, "splits/a", "1")
    root.publish("predictions")

    assert objects(root, "splits") == {"splits/a"}
    assert root.keys("predictions") == []
