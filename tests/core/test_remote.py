"""Folders without a head, single objects, and storage that fails."""

from __future__ import annotations

import argparse
import os
import urllib.request
from pathlib import Path

import pytest

from emotion_assets.core.errors import InvalidSettingError
from emotion_assets.core.remote import is_remote, local_root, open_store, plain_tag
from tests.core.remote_hosts import commit, files, host, write


def test_addresses_are_told_from_folders() -> None:
    assert is_remote("s3://bucket/path")
    assert is_remote("gs://bucket")
    assert not is_remote(Path("/data"))


def test_commands_work_on_folders() -> None:
    assert local_root("/data") == Path("/data")
    with pytest.raises(argparse.ArgumentTypeError, match="is in object storage"):
        local_root("s3://bucket/path")


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
