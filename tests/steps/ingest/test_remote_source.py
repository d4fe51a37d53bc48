"""Images in object storage are read like files."""

from __future__ import annotations

import shutil
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.layout import DataPaths
from emotion_assets.core.remote import open_store
from emotion_assets.steps.ingest.catalogue import ingest_images
from emotion_assets.steps.ingest.decode import DecodedContent, read_files
from emotion_assets.steps.ingest.remote_source import describe
from emotion_assets.steps.ingest.scan import FolderScan, SkippedFile, SourceFile, folder_state
from tests.object_storage import turn_versions_on


@pytest.fixture
def paths(drawn_root: Path, tmp_path: Path, s3_root: str, upload: Callable[[Path], None]) -> DataPaths:
    """A local copy of a data root, of which only `raw/` is in object storage."""
    shutil.copytree(drawn_root / "raw", tmp_path / "root" / "raw")
    stray = tmp_path / "root" / "raw" / "no class" / "ünï.jpg"
    stray.parent.mkdir()
    stray.write_bytes(b"no image")
    (tmp_path / "root" / "raw" / "Happy" / "broken.jpg").write_bytes(b"no image")
    upload(tmp_path / "root")
    return DataPaths(tmp_path / "copy", s3_root)


def test_the_same_files_are_found(paths: DataPaths, tmp_path: Path) -> None:
    """With the same classes, and the same reasons for what is skipped."""

    def found(source: str) -> set[tuple[object, ...]]:
        entries = FolderScan(source)
        return {
            (each.path, each.label, each.size_bytes) if isinstance(each, SourceFile) else tuple(each)
            for each in entries
        }

    assert found(paths.raw_source) == found(str(tmp_path / "root" / "raw"))
    assert folder_state(paths.raw_source) == folder_state(paths.raw_source)
    assert folder_state(f"{paths.raw_source}/nothing").num_files == 0


def test_the_catalogue_is_the_same(paths: DataPaths, tmp_path: Path) -> None:
    local = ingest_images(DataPaths(tmp_path / "root"))
    remote = ingest_images(paths, num_workers=1)
    again = ingest_images(paths, num_workers=1)

    assert remote.fingerprint == local.fingerprint
    assert (again.num_new, again.num_cached) == (0, remote.num_new)
    assert remote.num_new == local.num_new


def test_tags_are_compared_without_quotes() -> None:
    """Azure lists them without."""
    meta = {"size": 1, "last_modified": datetime.now(UTC), "version": None}

    assert describe(meta | {"e_tag": '"0x8D"'}) == describe(meta | {"e_tag": "0x8D"})


def test_a_bucket_with_versions_is_read_alike(paths: DataPaths, s3_root: str, s3_server: str) -> None:
    """A listing does not have the version that reading tells."""
    turn_versions_on(s3_root, s3_server)
    store = open_store(paths.raw_source)
    first = next(each for each in FolderScan(paths.raw_source) if isinstance(each, SourceFile))
    store.put("Happy/new.jpg", bytes(store.get(first.path.decode()).bytes()))
    files = [each for each in FolderScan(paths.raw_source) if isinstance(each, SourceFile)]

    results = read_files(paths.raw_source, "", files)

    assert b"Happy/new.jpg" in [file.path for file in files]
    assert not [result for result in results if isinstance(result, SkippedFile)]


def test_a_key_that_no_path_can_have_is_named(paths: DataPaths, s3_root: str, s3_server: str) -> None:
    """It hides its folder until it is renamed; the other folders are read."""
    address = f"{s3_server}/{s3_root.removeprefix('s3://')}/raw/Happy//1.jpg"
    urllib.request.urlopen(urllib.request.Request(address, b"x", method="PUT")).close()

    entries = list(FolderScan(paths.raw_source))

    (skipped,) = [each for each in entries if isinstance(each, SkippedFile) and each.path == b"Happy"]
    assert "if a key has // or .. in it, rename that object" in skipped.reason
    assert "sad" in {each.label for each in entries if isinstance(each, SourceFile)}


def test_worker_processes_read_objects(paths: DataPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emotion_assets.steps.ingest.decode_pool.PARALLEL_FROM_FILES", 1)
    assert ingest_images(paths, num_workers=2).num_new == 201


def test_a_changed_object_is_read_again_and_a_removed_one_dropped(paths: DataPaths) -> None:
    store = open_store(paths.raw_source)
    before = folder_state(paths.raw_source)
    ingest_images(paths, num_workers=1)
    names = sorted(each["path"] for batch in store.list("Happy/demo") for each in batch)
    store.put(names[0], bytes(store.get(names[1]).bytes()))
    store.delete(names[2])

    report = ingest_images(paths, num_workers=1)

    assert (report.num_new, report.num_decoded, report.num_removed) == (1, 0, 1)
    assert folder_state(paths.raw_source) != before


def test_what_changes_while_it_is_read_is_left_for_the_next_run(paths: DataPaths) -> None:
    files = [each for each in FolderScan(paths.raw_source) if isinstance(each, SourceFile)][:3]
    store = open_store(paths.raw_source)
    store.put(files[0].path.decode(), b"other")
    store.delete(files[1].path.decode())

    results = read_files(paths.raw_source, "", files)

    assert [result.code for result in results[:2] if isinstance(result, SkippedFile)] == ["still_changing", "vanished"]
    assert isinstance(results[2], DecodedContent)


def test_storage_that_does_not_respond_is_tried_again_by_the_next_run(
    paths: DataPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = next(each for each in FolderScan(paths.raw_source) if isinstance(each, SourceFile))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_RETRIES", "0")
    dead = f"{paths.raw_source}/dead"

    (result,) = read_files(dead, "", [file])

    assert isinstance(result, SkippedFile)
    assert result.code == "failed_read"
    with pytest.raises(UnusableDataError, match="dead/raw: The folder cannot be listed"):
        ingest_images(DataPaths(paths.root, f"{paths.remote_root}/dead"))
