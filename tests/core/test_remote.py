"""Snapshots in object storage: whole states, no lost update, and no work of a killed process in the way."""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import threading
import urllib.request
from pathlib import Path

import pytest

from emotion_assets.core.errors import ChangedElsewhereError, InvalidSettingError
from emotion_assets.core.remote import RemoteRoot, is_remote, local_root, open_store, plain_tag
from tests.object_storage import turn_versions_on


def host(url: str, tmp_path: Path, name: str) -> RemoteRoot:
    return RemoteRoot(url, tmp_path / name)


def write(root: RemoteRoot, path: str, text: str) -> None:
    target = root.local / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def files(root: RemoteRoot, folder: str) -> dict[str, str]:
    paths = [path for path in (root.local / folder).rglob("*") if path.is_file() and path.name[0] != "."]
    return {path.relative_to(root.local / folder).as_posix(): path.read_text() for path in paths}


def test_addresses_are_told_from_folders() -> None:
    assert is_remote("s3://bucket/path")
    assert is_remote("gs://bucket")
    assert not is_remote(Path("/data"))


def test_commands_work_on_folders() -> None:
    assert local_root("/data") == Path("/data")
    with pytest.raises(argparse.ArgumentTypeError, match="is in object storage"):
        local_root("s3://bucket/path")


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


def test_folders_without_a_head_are_listed(s3_root: str, tmp_path: Path) -> None:
    """What services create is fetched; what the pipeline compacts is removed; its own files are uploaded."""
    service, pipeline = host(s3_root, tmp_path, "service"), host(s3_root, tmp_path, "pipeline")
    service.create("predictions/2026-01-01/a.jsonl", b"1\n")
    service.create("predictions/2026-01-01/b.jsonl", b"2\n")
    with pytest.raises(FileExistsError):
        service.create("predictions/2026-01-01/a.jsonl", b"3\n")
    pipeline.fetch("predictions")
    assert files(pipeline, "predictions") == {"2026-01-01/a.jsonl": "1\n", "2026-01-01/b.jsonl": "2\n"}

    (pipeline.local / "predictions/2026-01-01/a.jsonl").unlink()
    write(pipeline, "predictions/history/2026-01-01/00.parquet", "table")
    pipeline.publish("predictions")

    assert sorted(service.keys("predictions")) == [
        "predictions/2026-01-01/b.jsonl",
        "predictions/history/2026-01-01/00.parquet",
    ]
    assert service.exists("predictions/2026-01-01/b.jsonl")
    assert not service.exists("predictions/2026-01-01/a.jsonl")


def test_the_users_own_files_come_and_go(s3_root: str, tmp_path: Path) -> None:
    root = host(s3_root, tmp_path, "host")
    root.fetch_files(["classes.yaml"])
    assert not (root.local / "classes.yaml").exists()
    root.create("classes.yaml", b"classes")
    root.fetch_files(["classes.yaml"])
    assert (root.local / "classes.yaml").read_bytes() == b"classes"
    open_store(s3_root).delete("classes.yaml")
    root.fetch_files(["classes.yaml"])
    assert not (root.local / "classes.yaml").exists()


@pytest.mark.cluster
def test_an_unknown_kind_of_address_is_one_sentence() -> None:
    with pytest.raises(InvalidSettingError, match="ftp://host cannot be opened"):
        open_store("ftp://host")


def test_storage_that_does_not_respond_is_an_os_error(
    s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers handle it like a disk that fails."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_RETRIES", "0")
    root = host(s3_root, tmp_path, "host")
    for use in (lambda: root.read("x"), lambda: root.create("x", b""), lambda: root.checkout("splits")):
        with pytest.raises(OSError, match="http://127"):
            use()


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


def test_a_failed_fetch_brings_nothing_back(s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was fetched before the failure is known: once it is removed elsewhere, it is not new here."""
    store = open_store(s3_root)

    class Fails:
        def get(self, key: str) -> object:
            if key.endswith("b.jsonl"):
                raise OSError(110, "timed out")
            return store.get(key)

        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

    for name in "ab":
        store.put(f"predictions/{name}.jsonl", b"1")
    with monkeypatch.context() as patch:
        patch.setattr("emotion_assets.core.remote.open_store", lambda url: Fails())
        with pytest.raises(OSError, match="timed out"):
            host(s3_root, tmp_path, "host").fetch("predictions")
    store.delete("predictions/a.jsonl")
    root = host(s3_root, tmp_path, "host")
    root.fetch("predictions")
    root.publish("predictions")

    assert root.keys("predictions") == ["predictions/b.jsonl"]


def test_odd_names_and_markers_of_folders(s3_root: str, tmp_path: Path) -> None:
    """Consoles mark an empty folder by an empty object; the service's key is nobody else's."""
    store = open_store(s3_root)
    names = ["a#b.jpg", "100 %.jpg", "ü ~?.jpg"]
    for name in names:
        store.put(f"external/Happy/{name}", name.encode())
    raw_put(s3_root, "external/")
    raw_put(s3_root, "external/Happy/")
    store.put("external/.key", b"secret")
    root = host(s3_root, tmp_path, "host")

    root.fetch("external")

    assert files(root, "external") == {f"Happy/{name}": name for name in names}
    assert not (root.local / "external" / ".key").exists()


def raw_put(url: str, key: str) -> None:
    """Create an object whose key obstore would clean."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    address = f"{os.environ['AWS_ENDPOINT_URL']}/{bucket}/{prefix}/{key}"
    urllib.request.urlopen(urllib.request.Request(address, data=b"", method="PUT")).close()


def test_labelled_images_are_added_and_nothing_else(s3_root: str, tmp_path: Path) -> None:
    """The user's own files below `raw/` are neither changed nor removed."""
    root, store = host(s3_root, tmp_path, "host"), open_store(s3_root)
    store.put("raw/subjects.csv", b"the user's newer table")
    write(root, "raw/subjects.csv", "an older copy")
    write(root, "raw/Happy/feedback/1.jpg", "1")
    root.add("raw", "feedback")
    (root.local / "raw/Happy/feedback/1.jpg").unlink()
    root.add("raw", "feedback")

    assert root.read("raw/Happy/feedback/1.jpg") == b"1"
    assert root.read("raw/subjects.csv") == b"the user's newer table"


def test_what_people_remove_from_the_root_stays_removed(s3_root: str, tmp_path: Path) -> None:
    """One labelled image was removed and one moved; a fresh host knows the names, and uploads none of them."""
    store = open_store(s3_root)
    for host_name in ("host", "fresh host"):
        root = host(s3_root, tmp_path, host_name)
        for name in ("removed", "moved", "kept") if host_name == "host" else ():
            write(root, f"raw/Happy/feedback/{name}.jpg", name)
        root.add("raw", "feedback")
        if host_name == "host":
            store.delete("raw/Happy/feedback/removed.jpg")
            store.rename("raw/Happy/feedback/moved.jpg", "raw/Sad/feedback/moved.jpg")

        known = root.fetch_names("raw", "feedback")
        root.add("raw", "feedback", known)

        assert set(files(root, "raw")) == {"Happy/feedback/kept.jpg", "Sad/feedback/moved.jpg"}
        assert set(root.keys("raw")) == {"raw/Happy/feedback/kept.jpg", "raw/Sad/feedback/moved.jpg"} == known
    assert root.read("raw/Sad/feedback/moved.jpg") == b"moved"


@pytest.mark.parametrize("path", ["../../../escaped.txt", "/escaped.txt", "a/../../b"])
def test_a_head_names_no_files_elsewhere(s3_root: str, tmp_path: Path, path: str) -> None:
    """Whoever can write to the bucket must not write to the disks of all hosts."""
    store = open_store(s3_root)
    store.put("models/x.1", b"x")
    store.put("models/_head.json", json.dumps({"keys": {path: "models/x.1"}, "dropped": []}).encode())

    with pytest.raises(OSError, match="names files elsewhere"):
        RemoteRoot(s3_root, tmp_path / "copy").checkout("models")


def commit(root: RemoteRoot, path: str, text: str) -> None:
    write(root, path, text)
    root.commit(path.partition("/")[0])


def objects(root: RemoteRoot, folder: str) -> set[str]:
    """Return the objects of a folder but for its head, without their random endings."""
    return {key.rpartition(".")[0] for key in root.keys(folder) if not key.endswith("_head.json")}


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


def test_an_object_that_is_removed_while_it_is_fetched(
    s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two commits later the newest state is fetched instead."""
    other, store = host(s3_root, tmp_path, "other"), open_store(s3_root)
    commit(other, "splits/a", "1")

    class Slow:
        is_late = True

        def get(self, key: str) -> object:
            if not key.endswith("_head.json") and self.is_late:
                self.is_late = False
                for text in ("22", "333"):
                    commit(other, "splits/a", text)
            return store.get(key)

        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

    monkeypatch.setattr("emotion_assets.core.remote.open_store", lambda url: Slow())
    root = host(s3_root, tmp_path, "host")
    root.checkout("splits")

    assert files(root, "splits") == {"a": "333"}


def test_temporary_and_private_files_stay_here(s3_root: str, tmp_path: Path) -> None:
    root = host(s3_root, tmp_path, "host")
    for path in ("splits/.lock", "splits/.private/a", "splits/train/.a.tmp", "predictions/.private/a"):
        write(root, path, "here")
    commit(root, "splits/a", "1")
    root.publish("predictions")

    assert objects(root, "splits") == {"splits/a"}
    assert root.keys("predictions") == []


def test_single_files_are_written_if_they_differ(s3_root: str, tmp_path: Path) -> None:
    root = host(s3_root, tmp_path, "host")
    root.create("classes.yaml", b"classes")
    root.fetch_files(["classes.yaml"])
    inode = (root.local / "classes.yaml").stat().st_ino
    root.fetch_files(["classes.yaml"])
    assert (root.local / "classes.yaml").stat().st_ino == inode

    open_store(s3_root).put("classes.yaml", b"CLASSES")
    root.fetch_files(["classes.yaml"])

    assert (root.local / "classes.yaml").read_bytes() == b"CLASSES"


def test_what_is_published_again_is_new(s3_root: str, tmp_path: Path) -> None:
    """A changed file is uploaded again; an object that others made after its removal is not removed again."""
    root = host(s3_root, tmp_path, "host")
    for text in ("1", "22"):
        write(root, "predictions/a", text)
        root.publish("predictions")
        assert root.read("predictions/a") == text.encode()
    (root.local / "predictions/a").unlink()
    root.publish("predictions")
    assert not root.exists("predictions/a")
    root.create("predictions/a", b"others")

    root.publish("predictions")

    assert root.read("predictions/a") == b"others"


def test_tags_are_compared_without_quotes() -> None:
    assert plain_tag('"0x8D"') == plain_tag("0x8D") == "0x8D"
    assert plain_tag(None) == ""
