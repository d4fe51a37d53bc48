from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.steps.ingest import store as store_module
from emotion_assets.steps.ingest.decode import DecodedContent
from emotion_assets.steps.ingest.scan import SkipCode, SkippedFile, SourceFile
from emotion_assets.steps.ingest.store import STORE_NAME, Store

FILE = SourceFile(b"Happy/1.jpg", "happy", 10, 1, 1)
CONTENT = DecodedContent("a" * 64, 96, 96, "L", "JPEG", bytes(range(256)) * 16)
DESCRIPTORS = {CONTENT.content_hash: np.ones(120, dtype=np.int16).tobytes()}


def test_store_remembers_files_and_pixels(tmp_path: Path) -> None:
    """A known file is not reported as changed, and its pixels are read back."""
    with Store(tmp_path / STORE_NAME) as store:
        store.add([(FILE, CONTENT)], DESCRIPTORS)
    with Store(tmp_path / STORE_NAME) as store:
        assert store.match_known([FILE, FILE._replace(mtime_ns=2)]) == [FILE._replace(mtime_ns=2)]
        assert store.read_pixels([CONTENT.content_hash]).tobytes() == CONTENT.pixels
        assert store.has_uncompared()
        assert store.published_fingerprint() is None


def test_a_skipped_file_is_no_longer_used(tmp_path: Path) -> None:
    """A file that cannot be read any more leaves the usable ones; the table must be published again."""
    with Store(tmp_path / STORE_NAME) as store:
        store.add([(FILE, CONTENT)], DESCRIPTORS)
        store.mark_published("f")
        assert store.published_fingerprint() == "f"
        store.add_skipped([SkippedFile(FILE.path, SkipCode.FAILED_READ, "why")])

        assert list(store.file_rows()) == []
        assert store.skipped_files() == [(b"Happy/1.jpg", "failed_read", "why", 1)]
        assert store.published_fingerprint() is None


def test_a_failed_transaction_changes_nothing(tmp_path: Path) -> None:
    """Everything inside is committed at once, or nothing."""
    with Store(tmp_path / STORE_NAME) as store:
        with pytest.raises(RuntimeError), store.transaction():
            raise RuntimeError
        store.add([(FILE, CONTENT)], DESCRIPTORS)
        assert store.find_path(1) == FILE.path


@pytest.mark.parametrize("damage", ["schema", "content"])
def test_a_store_that_cannot_be_read_says_what_to_do(tmp_path: Path, damage: str) -> None:
    """It has another schema, or is not a database."""
    path = tmp_path / STORE_NAME
    with Store(path):
        pass
    if damage == "schema":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 99")
    else:
        for name in (path, *path.parent.glob(f"{path.name}-*")):
            name.write_bytes(b"not a database" * 100)

    with pytest.raises(UnusableDataError, match="Move the folder"), Store(path):
        pass


def test_only_the_files_of_an_unreadable_folder_stay(tmp_path: Path) -> None:
    """Not those of another one whose name begins alike."""
    other = FILE._replace(path=b"Happy 2/1.jpg")
    with Store(tmp_path / STORE_NAME) as store:
        store.add([(FILE, CONTENT), (other, CONTENT)], DESCRIPTORS)

        assert store.drop_missing([], [b"Happy"]) == 1
        assert [row[0] for row in store.file_rows()] == [FILE.path]


def test_other_pixels_of_a_newer_decoder_are_read_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the old one are neither read nor near anything any more."""
    pixels = CONTENT.pixels[::-1]
    newer = DecodedContent(CONTENT.content_hash, 96, 96, "L", "JPEG", pixels)
    with Store(tmp_path / STORE_NAME) as store:
        store.add([(FILE, CONTENT)], DESCRIPTORS)
        store.add_pairs([], [1])
        assert not store.has_uncompared()
        monkeypatch.setattr(store_module, "DECODER_VERSION", "newer")
        store.add([(FILE, newer)], {CONTENT.content_hash: np.full(120, 2, dtype=np.int16).tobytes()})

        assert store.has_uncompared()
        assert store.read_pixels([CONTENT.content_hash]).tobytes() == pixels
