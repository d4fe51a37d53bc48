from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from emotion_assets.core.bundle import (
    INT8_MODEL_NAME,
    MANIFEST_NAME,
    MODEL_NAME,
    check_files,
    complete_versions,
    is_version,
    read_manifest,
    runtime_model,
    runtime_precision,
)
from emotion_assets.core.errors import BundleMismatchError
from tests.bundles import change_manifest


@pytest.fixture
def own_bundle(bundle_dir: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may damage."""
    return Path(shutil.copytree(bundle_dir, tmp_path / bundle_dir.name))


def test_read_manifest_of_a_whole_bundle(bundle_dir: Path) -> None:
    """A fresh bundle reads back under its own name, and its files match."""
    manifest = read_manifest(bundle_dir)

    assert manifest.version == bundle_dir.name
    check_files(bundle_dir, manifest)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schema_version": 99}, "schema version 99"),
        ({"emotions": ["happy", "sad"]}, "contradictory classes"),
        ({"image_size_px": 32}, "32 px"),
        ({"surplus": 1}, "missing or unknown"),
        ({"version": "../../etc"}, "malformed version"),
    ],
)
def test_read_manifest_rejects_other_schemas(own_bundle: Path, fields: dict[str, object], message: str) -> None:
    """A manifest of another schema, for other emotions or with unknown fields is rejected."""
    change_manifest(own_bundle, **fields)

    with pytest.raises(BundleMismatchError, match=message):
        read_manifest(own_bundle)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_read_manifest_rejects_damage(own_bundle: Path, content: bytes) -> None:
    """A torn or foreign manifest is rejected with a message, not with the parser's error."""
    (own_bundle / MANIFEST_NAME).write_bytes(content)

    with pytest.raises(BundleMismatchError):
        read_manifest(own_bundle)


def test_every_altered_file_is_noticed(own_bundle: Path) -> None:
    """Ten bytes of each file, one at a time; a manifest that still parses would serve wrong labels."""
    accepted = []
    manifest = read_manifest(own_bundle)
    for path in sorted(own_bundle.iterdir()):
        content = path.read_bytes()
        if path.name not in {*manifest.files, MANIFEST_NAME}:
            continue
        for position in range(0, len(content), len(content) // 10 + 1):
            changed = bytes([content[position] ^ 1])
            path.write_bytes(content[:position] + changed + content[position + 1 :])
            with contextlib.suppress(BundleMismatchError):
                check_files(own_bundle, changed_manifest := read_manifest(own_bundle))
                # The seventeenth digit of a number may be another and the number the same.
                if path.name != MANIFEST_NAME or changed_manifest != manifest:
                    accepted.append((path.name, position))
        path.write_bytes(content)

    assert accepted == []


def test_read_manifest_rejects_an_incomplete_bundle(tmp_path: Path) -> None:
    """A folder without a manifest was never completed."""
    with pytest.raises(BundleMismatchError, match="never completed"):
        read_manifest(tmp_path)


def test_check_files_rejects_altered_and_missing_files(own_bundle: Path) -> None:
    """A flipped byte and a missing file are named."""
    manifest = read_manifest(own_bundle)
    path = own_bundle / MODEL_NAME
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleMismatchError, match=r"model\.onnx was altered"):
        check_files(own_bundle, manifest)

    path.unlink()
    with pytest.raises(BundleMismatchError, match="missing"):
        check_files(own_bundle, manifest)


def test_check_files_rejects_names_that_leave_the_folder(own_bundle: Path) -> None:
    """A manifest cannot point outside its bundle."""
    change_manifest(own_bundle, files={"../champion.json": "0" * 64})

    with pytest.raises(BundleMismatchError):
        check_files(own_bundle, read_manifest(own_bundle))


def test_complete_versions_are_sorted_and_complete(tmp_path: Path) -> None:
    """A folder without a manifest or with another name is not a version."""
    names = ("20260102-000000-00000000", "20260101-000000-ffffffff", "notes", "20260103-000000-00000000")
    for name in names:
        (tmp_path / name).mkdir()
    for name in names[:3]:
        (tmp_path / name / MANIFEST_NAME).touch()

    assert complete_versions(tmp_path) == ["20260101-000000-ffffffff", "20260102-000000-00000000"]
    assert is_version(names[0])
    assert not is_version("../20260102-000000-00000000")


def test_runtime_model_prefers_the_8_bit_one(bundle_dir: Path) -> None:
    """If there is one, evaluation and service run it."""
    manifest = read_manifest(bundle_dir)
    assert (runtime_model(manifest), runtime_precision(manifest)) == (MODEL_NAME, "float32")

    manifest.files[INT8_MODEL_NAME] = "0" * 64
    assert (runtime_model(manifest), runtime_precision(manifest)) == (INT8_MODEL_NAME, "int8")
