from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from emotion_assets.core.images import IMAGE_SIZE_PX
from emotion_assets.steps.ingest import decode
from emotion_assets.steps.ingest.decode import DecodedContent, ReadResult, read_files
from emotion_assets.steps.ingest.scan import FolderScan, SkippedFile, SourceFile
from emotion_assets.steps.ingest.store import Store


def read(raw: Path) -> dict[bytes, ReadResult]:
    """Read all files of `raw` beside an empty store; return the results by path."""
    store_path = raw.parent / "empty 50%25 a#b?.sqlite"
    with Store(store_path):
        pass
    files = [entry for entry in FolderScan(raw) if isinstance(entry, SourceFile)]
    results = read_files(str(raw), str(store_path), files)
    return dict(zip((file.path for file in files), results, strict=True))


def test_read_files_decodes_or_rejects(raw: Path, face: bytes) -> None:
    """A content is decoded once in a batch, and a damaged one has the code of its rejection."""
    (raw / "Happy" / "a copy.jpg").write_bytes((raw / "Happy" / "6.jpg").read_bytes())
    (raw / "Happy" / "empty.jpg").touch()
    (raw / "Happy" / "cut.jpg").write_bytes(face[: len(face) // 2])
    with (raw / "Happy" / "giant.jpg").open("wb") as giant:
        giant.truncate(5 * 2**30)

    results = read(raw)

    contents = {path: result for path, result in results.items() if isinstance(result, DecodedContent)}
    pair = [contents[b"Happy/6.jpg"], contents[b"Happy/a copy.jpg"]]
    assert {content.content_hash for content in pair} == {
        hashlib.sha256((raw / "Happy/6.jpg").read_bytes()).hexdigest()
    }
    assert sorted(content.is_new for content in pair) == [False, True]
    assert [len(content.pixels) for content in pair if content.pixels] == [IMAGE_SIZE_PX**2]
    codes = {path: content.rejection_code for path, content in contents.items() if content.rejection_code}
    assert codes == {
        b"Happy/empty.jpg": "empty_image",
        b"Happy/cut.jpg": "unreadable_image",
        b"Happy/giant.jpg": "image_too_large",
    }


def test_read_files_reports_what_cannot_be_read(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without permission, one that vanished and one that grew while it was read are skipped."""
    real_open = os.open

    def interfere(path: object, *rest: int) -> int:
        if isinstance(path, bytes):
            if path.endswith(b"/0.jpg"):
                raise PermissionError(13, "Permission denied")
            if path.endswith(b"/1.jpg"):
                os.unlink(path)
            if path.endswith(b"/2.jpg"):
                Path(os.fsdecode(path)).write_bytes(b"longer" * 10_000)
        return real_open(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("os.open", interfere)
    results = read(raw)

    skipped = {path: result.code for path, result in results.items() if isinstance(result, SkippedFile)}
    assert skipped == {
        b"Angry/0.jpg": "unreadable_file",
        b"Angry/1.jpg": "vanished",
        b"Angry/2.jpg": "still_changing",
    }


def test_read_files_skips_images_when_memory_is_short(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is no rejection, which would be permanent."""

    def fail(_: bytes) -> None:
        raise MemoryError

    monkeypatch.setattr(decode, "decode_image", fail)

    results = read(raw).values()

    assert {result.code for result in results if isinstance(result, SkippedFile)} == {"out_of_memory"}
