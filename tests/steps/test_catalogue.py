from __future__ import annotations

import dataclasses
import io
import os
import shutil
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.errors import UnreadableImageError, UnusableDataError
from emotion_assets.core.images import IMAGE_SIZE_PX
from emotion_assets.steps.ingest import decode_pool
from emotion_assets.steps.ingest.catalogue import STORE_NAME, IngestReport, ingest_images
from emotion_assets.steps.ingest.decode_pool import SourceFile, _received, _sent, read_files
from emotion_assets.steps.ingest.export import TABLE_NAME
from emotion_assets.steps.ingest.scan import folder_signature
from emotion_assets.steps.ingest.store import Store


@pytest.fixture
def raw(tmp_path: Path, faces: list[tuple[str, bytes]]) -> Path:
    """A folder with three faces of each emotion."""
    for number, (emotion, content) in enumerate(faces):
        path = tmp_path / "raw" / emotion.capitalize() / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "raw"


def stock(raw: Path) -> tuple[IngestReport, pd.DataFrame]:
    report = ingest_images(raw, raw.parent / "catalogue")
    return report, pd.read_parquet(raw.parent / "catalogue" / TABLE_NAME).set_index("path")


def test_take_stock_lists_every_file(raw: Path) -> None:
    """Each file has a row with its label, hash, size and format."""
    report, table = stock(raw)

    assert (report.num_files, report.num_new, report.num_decoded) == (15, 15, 15)
    assert table["is_accepted"].all()
    assert table["label"].value_counts().to_dict() == dict.fromkeys(EMOTIONS, 3)
    assert set(table["format"]) == {"JPEG"}
    assert (table["width_px"] == 96).all()


def test_take_stock_reads_only_what_is_new(raw: Path, face: bytes) -> None:
    """A second run decodes nothing; one new file costs one."""
    stock(raw)

    second, _ = stock(raw)
    (raw / "Happy" / "new.jpg").write_bytes(face + b"\0")
    third, _ = stock(raw)

    assert (second.num_new, second.num_cached, second.num_decoded) == (0, 15, 0)
    assert (third.num_new, third.num_cached, third.num_decoded) == (1, 15, 1)


def test_take_stock_does_not_decode_known_content_again(raw: Path) -> None:
    """A file that was touched, renamed or copied is read, but not decoded."""
    stock(raw)
    path = next(raw.glob("Angry/*.jpg"))

    shutil.copyfile(path, path.with_name("copy.jpg"))
    os.utime(path, (1, 1))
    report, table = stock(raw)

    assert (report.num_new, report.num_decoded) == (2, 0)
    assert table.loc["Angry/copy.jpg", "content_hash"] == table.loc[f"Angry/{path.name}", "content_hash"]


def test_take_stock_drops_removed_files(raw: Path) -> None:
    """A deleted file leaves the catalogue."""
    stock(raw)
    next(raw.glob("Sad/*.jpg")).unlink()

    report, table = stock(raw)

    assert report.num_removed == 1
    assert len(table) == 14


def test_fingerprint_follows_contents_and_labels_only(raw: Path) -> None:
    """Renaming changes nothing, relabelling does."""
    before, _ = stock(raw)
    path = next(raw.glob("Fear/*.jpg"))
    path = path.rename(path.with_name("other name.jpg"))
    renamed, _ = stock(raw)
    path.rename(raw / "Sad" / path.name)
    relabelled, _ = stock(raw)

    assert renamed.fingerprint == before.fingerprint
    assert relabelled.fingerprint != before.fingerprint


def test_take_stock_reports_what_is_odd(raw: Path, face: bytes, tmp_path: Path) -> None:
    """Links, pipes, sockets, archives, foreign folders, junk and damage are listed with a reason, and harm nothing."""
    happy = raw / "Happy"
    (happy / "loop").symlink_to(raw)
    (tmp_path / "secret.jpg").write_bytes(face + b"secret")
    (happy / "outside.jpg").symlink_to(tmp_path / "secret.jpg")
    os.mkfifo(happy / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(happy / "s.jpg"))
    (happy / "empty.jpg").touch()
    (happy / "text.jpg").write_text("not an image")
    (happy / "cut.jpg").write_bytes(face[: len(face) // 2])
    with (happy / "giant.jpg").open("wb") as giant:
        giant.truncate(5 * 2**30)
    (happy / "folder.jpg").mkdir()
    (happy / "coming.jpg.part").write_bytes(face[:100])
    (happy / ".coming.jpg.Xb3k").write_bytes(face)
    (happy / ".thumbnails").mkdir()
    (happy / ".thumbnails" / "a.jpg").write_bytes(face + b"small")
    (happy / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (raw / "Neutral").mkdir()
    (raw / "Neutral" / "x.jpg").write_bytes(face)
    (raw / "delivery.zip").write_bytes(b"PK")
    (raw / "loose.jpg").write_bytes(face)
    with open(os.fsencode(happy) + b"/\xff\xfe.jpg", "wb") as file:
        file.write(face + b"odd name")

    report, table = stock(raw)

    codes = table["reason_code"].dropna().to_dict()
    assert codes == {
        "Happy/loop": "symbolic_link",
        "Happy/outside.jpg": "symbolic_link",
        "Happy/pipe.jpg": "not_a_file",
        "Happy/s.jpg": "not_a_file",
        "Happy/empty.jpg": "empty_image",
        "Happy/text.jpg": "unsupported_format",
        "Happy/cut.jpg": "unreadable_image",
        "Happy/giant.jpg": "image_too_large",
        "Happy/coming.jpg.part": "unfinished_copy",
        "Happy/.coming.jpg.Xb3k": "system_file",
        "Happy/.thumbnails": "system_file",
        "Happy/Thumbs.db": "system_file",
        "Neutral": "unknown_folder",
        "delivery.zip": "packed_archive",
        "loose.jpg": "unlabelled_file",
    }
    assert table["reason"].dropna().str.len().min() > 20
    assert table.loc["Happy/\\xff\\xfe.jpg", "is_accepted"]
    assert report.num_to_retry == 0


def test_take_stock_lists_unreadable_files(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without permission is listed and taken once it can be read."""
    real_open = os.open

    def reject(path: object, *rest: int) -> int:
        if isinstance(path, bytes) and path.endswith(b"/0.jpg"):
            raise PermissionError(13, "Permission denied")
        return real_open(path, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("emotion_assets.steps.ingest.decode_pool.os.open", reject)
        _, denied = stock(raw)
    report, allowed = stock(raw)

    assert denied.loc["Angry/0.jpg", "reason_code"] == "unreadable_file"
    assert allowed["is_accepted"].all()
    assert report.num_new == 1


def test_take_stock_leaves_a_changing_file_for_later(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that grew while it was read is not used; the next run takes it."""
    real_read = os.open
    path = raw / "Angry" / "0.jpg"

    def grow(name: object, *rest: int) -> int:
        if isinstance(name, bytes) and name.endswith(b"/0.jpg"):
            path.write_bytes(path.read_bytes() + b"more")
        return real_read(name, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("emotion_assets.steps.ingest.decode_pool.os.open", grow)
        _, during = stock(raw)
    _, after = stock(raw)

    assert during.loc["Angry/0.jpg", "reason_code"] == "still_changing"
    assert after.loc["Angry/0.jpg", "is_accepted"]


def test_take_stock_with_worker_processes_gives_the_same(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding in other processes changes no row."""
    _, alone = stock(raw)
    shutil.rmtree(raw.parent / "catalogue")
    monkeypatch.setattr("emotion_assets.steps.ingest.catalogue._PARALLEL_FROM_FILES", 0)
    monkeypatch.setattr("emotion_assets.steps.ingest.catalogue._BATCH_FILES", 4)

    ingest_images(raw, raw.parent / "catalogue", num_workers=2)
    together = pd.read_parquet(raw.parent / "catalogue" / TABLE_NAME).set_index("path")

    pd.testing.assert_frame_equal(together, alone)


def test_the_table_follows_oddities_that_go(raw: Path) -> None:
    """A junk file that was removed leaves the table too."""
    (raw / "notes.txt").write_text("hello")
    _, before = stock(raw)
    (raw / "notes.txt").unlink()

    _, after = stock(raw)

    assert "notes.txt" in before.index
    assert "notes.txt" not in after.index


def test_a_kill_before_publishing_is_made_good(raw: Path, face: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was stored but not published appears after the next run, though that run finds nothing new."""
    stock(raw)
    (raw / "Happy" / "late.jpg").write_bytes(face + b"late")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("emotion_assets.steps.ingest.catalogue.publish", die)
        with pytest.raises(KeyboardInterrupt):
            ingest_images(raw, raw.parent / "catalogue")
    report, table = stock(raw)

    assert report.num_new == 0
    assert "Happy/late.jpg" in table.index


def test_dead_readers_are_survived(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When every reader process is killed, the ingest continues by itself."""
    monkeypatch.setattr("emotion_assets.steps.ingest.catalogue._PARALLEL_FROM_FILES", 0)
    monkeypatch.setattr("emotion_assets.steps.ingest.catalogue._BATCH_FILES", 4)
    monkeypatch.setattr("emotion_assets.steps.ingest.decode_pool.sys.executable", "/bin/false")

    report = ingest_images(raw, raw.parent / "catalogue", num_workers=2)

    assert report.num_decoded == 15


def test_a_reader_killed_in_mid_answer_is_noticed(raw: Path) -> None:
    """What is cut off is no answer, wherever the cut is."""
    files = []
    for path in sorted(raw.rglob("*.jpg"))[:2]:
        status = path.stat()
        place = bytes(path.relative_to(raw))
        files.append(SourceFile(place, "angry", status.st_size, status.st_mtime_ns, status.st_ino))
    with Store(raw.parent / "empty.sqlite"):
        whole = _sent(read_files(str(raw), str(raw.parent / "empty.sqlite"), files))

    assert len(_received(io.BytesIO(whole))) == 2
    for cut in (1, IMAGE_SIZE_PX**2, IMAGE_SIZE_PX**2 + 1):
        with pytest.raises(EOFError):
            _received(io.BytesIO(whole[:-cut]))


def test_take_stock_marks_label_conflicts(raw: Path) -> None:
    """The same image under two labels is marked in both places."""
    path = next(raw.glob("Happy/*.jpg"))
    shutil.copyfile(path, raw / "Sad" / "same.jpg")

    _, table = stock(raw)

    assert set(table.index[table["has_label_conflict"]]) == {f"Happy/{path.name}", "Sad/same.jpg"}


def test_take_stock_without_a_folder_says_what_to_do(tmp_path: Path) -> None:
    """A missing raw/ is rejected with the remedy."""
    with pytest.raises(UnusableDataError, match="make demo"):
        ingest_images(tmp_path / "raw", tmp_path / "catalogue")


def test_folder_signature_changes_with_the_files(raw: Path, face: bytes) -> None:
    """The sensor's look notices a new, a changed and a removed file, and nothing else."""
    before = folder_signature(raw)
    assert folder_signature(raw) == before

    (raw / "Happy" / "x.jpg").write_bytes(face)
    added = folder_signature(raw)
    (raw / "Happy" / "x.jpg").unlink()

    assert added[0] != before[0]
    assert added[1] == before[1] + 1
    assert folder_signature(raw)[0] == before[0]
    assert folder_signature(raw / "missing") == (f"{0:032x}", 0)


def test_take_stock_takes_a_removed_and_a_new_file_apart(raw: Path, face: bytes) -> None:
    """When one file went and another came, both are counted, though their number is the same."""
    stock(raw)
    next(raw.glob("Sad/*.jpg")).unlink()
    (raw / "Sad" / "other.jpg").write_bytes(face + b"\0")

    report, table = stock(raw)

    assert (report.num_new, report.num_removed, report.num_cached) == (1, 1, 14)
    assert len(table) == 15


def test_a_place_may_have_any_name(raw: Path) -> None:
    """What means something in an address is part of a name here."""
    report = ingest_images(raw, raw.parent / "50%25 a#b? c" / "catalogue")

    assert report.num_decoded == 15


def test_a_table_that_cannot_be_read_is_written_again(raw: Path) -> None:
    """A power cut may leave an empty file under its name."""
    stock(raw)
    (raw.parent / "catalogue" / TABLE_NAME).write_bytes(b"")

    _, table = stock(raw)

    assert len(table) == 15


def test_a_image_for_which_there_was_no_memory_is_tried_again(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rejected by its hash it would be gone permanently."""

    def fail(_: bytes) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(decode_pool, "decode_image", fail)
        _, table = stock(raw)
    assert set(table["reason_code"]) == {"out_of_memory"}

    assert stock(raw)[0].num_decoded == 15


def test_a_folder_that_cannot_be_read_is_not_taken_for_deleted(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read of it before stays, and it is said; a failed disk asks for another look by itself."""
    _, before = stock(raw)
    real_scandir = os.scandir

    def fail(path: object, code: int) -> object:
        if isinstance(path, bytes) and path.endswith(b"/Sad"):
            raise OSError(code, os.strerror(code))
        return real_scandir(path)  # type: ignore[call-overload]

    for code, reason, num_to_retry in ((13, "unreadable_file", 0), (5, "failed_read", 1)):
        with monkeypatch.context() as patch:
            patch.setattr("emotion_assets.steps.ingest.scan.os.scandir", lambda path, code=code: fail(path, code))
            report, during = stock(raw)
        assert (report.num_removed, report.num_to_retry) == (0, num_to_retry)
        assert during.loc["Sad", "reason_code"] == reason
        assert during["is_accepted"].sum() == 15
    _, after = stock(raw)
    pd.testing.assert_frame_equal(after, before)


def test_another_decoder_reads_everything_anew(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels of older code would differ from what the service sees; equal ones stay where they are."""
    first, before = stock(raw)
    size_bytes = (raw.parent / "catalogue" / "pixels.bin").stat().st_size
    for module in ("store", "decode_pool"):
        monkeypatch.setattr(f"emotion_assets.steps.data.{module}.DECODER_VERSION", "newer")
    same, table = stock(raw)
    assert (same.num_decoded, same.fingerprint) == (15, first.fingerprint)
    pd.testing.assert_frame_equal(table, before)

    real = decode_pool.decode_image

    def inverted(content: bytes) -> object:
        image = real(content)
        return dataclasses.replace(image, pixels=255 - image.pixels)

    monkeypatch.setattr(decode_pool, "decode_image", inverted)
    for module in ("store", "decode_pool"):
        monkeypatch.setattr(f"emotion_assets.steps.data.{module}.DECODER_VERSION", "newest")
    other, _ = stock(raw)
    again, _ = stock(raw)

    assert (other.num_decoded, again.num_decoded) == (15, 0)
    assert other.fingerprint != first.fingerprint
    assert (raw.parent / "catalogue" / "pixels.bin").stat().st_size == 2 * size_bytes


def test_another_decoder_may_reject_half_of_a_pair(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other half continues alone."""
    path = next(raw.glob("Happy/*.jpg"))
    Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path.with_suffix(".png"))
    _, before = stock(raw)
    assert before["near_duplicate_group"].notna().sum() == 2
    for module in ("store", "decode_pool"):
        monkeypatch.setattr(f"emotion_assets.steps.data.{module}.DECODER_VERSION", "newer")
    real = decode_pool.decode_image

    def stricter(content: bytes) -> object:
        if content.startswith(b"\x89PNG"):
            raise UnreadableImageError("no longer")
        return real(content)

    monkeypatch.setattr(decode_pool, "decode_image", stricter)

    _, after = stock(raw)

    assert after["is_accepted"].sum() == 15
    assert after["near_duplicate_group"].isna().all()


def test_what_cannot_be_read_anew_is_left_out(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that nobody may read, after the decoder has changed: its pixels are of another time."""
    stock(raw)
    for module in ("store", "decode_pool"):
        monkeypatch.setattr(f"emotion_assets.steps.data.{module}.DECODER_VERSION", "newer")
    real_scandir = os.scandir

    def fail(path: object) -> object:
        if isinstance(path, bytes) and path.endswith(b"/Sad"):
            raise PermissionError(13, "Permission denied")
        return real_scandir(path)  # type: ignore[call-overload]

    monkeypatch.setattr("emotion_assets.steps.ingest.scan.os.scandir", fail)
    report, table = stock(raw)

    assert (report.num_removed, table["is_accepted"].sum()) == (3, 12)
    with Store(raw.parent / "catalogue" / STORE_NAME) as store:
        assert not store.has_outdated_decoder()


def test_a_store_of_older_code_is_brought_up_to_date(raw: Path) -> None:
    """Nobody has to move a folder away; who made the pixels is not known, so they are made again."""
    _, before = stock(raw)
    with closing(sqlite3.connect(raw.parent / "catalogue" / STORE_NAME)) as connection:
        connection.execute("DROP INDEX contents_by_decoder")
        connection.execute("ALTER TABLE contents DROP COLUMN decoder")
        connection.execute("PRAGMA user_version = 3")
        connection.commit()

    report, after = stock(raw)

    assert report.num_decoded == 15
    pd.testing.assert_frame_equal(after, before)


@pytest.mark.parametrize("damage", ["schema", "content"])
def test_a_store_that_cannot_be_read_says_what_to_do(raw: Path, damage: str) -> None:
    """Of a schema of the future, or no database at all."""
    stock(raw)
    path = raw.parent / "catalogue" / STORE_NAME
    if damage == "schema":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 99")
    else:
        for name in (path, *path.parent.glob(f"{path.name}-*")):
            name.write_bytes(b"no database at all" * 100)

    with pytest.raises(UnusableDataError, match="Move the folder"):
        stock(raw)


def test_too_many_images_alike_are_rejected_until_they_are_gone(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A film cut into frames would take gigabytes; the message names one, and removing them is enough."""
    monkeypatch.setattr("emotion_assets.steps.ingest.near_duplicates.MAX_PAIRS", 10)
    film = raw / "Happy" / "film"
    film.mkdir()
    for number in range(8):
        Image.new("L", (64, 64), number).save(film / f"{number}.png")

    for _ in range(2):
        with pytest.raises(UnusableDataError, match=r"More than 10 pairs .* raw/Happy/film/\d.png"):
            stock(raw)
    shutil.rmtree(film)
    report, table = stock(raw)

    assert (report.num_removed, len(table)) == (8, 15)
