from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.errors import UnreadableImageError, UnusableDataError
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.ingest import catalogue, decode, decode_pool, near_duplicates, store
from emotion_assets.steps.ingest.catalogue import ingest_images
from emotion_assets.steps.ingest.export import TABLE_NAME, read_catalogue
from emotion_assets.steps.ingest.report import IngestReport
from emotion_assets.steps.ingest.scan import folder_state
from emotion_assets.steps.ingest.store import STORE_NAME, Store


def ingest(raw: Path) -> tuple[IngestReport, pd.DataFrame]:
    """Ingest, and return the report and the published table by path."""
    report = ingest_images(DataPaths(raw.parent))
    return report, read_catalogue(raw.parent / "catalogue").set_index("path")


def change_decoder(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    for module in (store, decode):
        monkeypatch.setattr(module, "DECODER_VERSION", version)


def test_ingest_lists_every_file(raw: Path, face: bytes) -> None:
    """Each file has a row with its label, hash, size and format, or with the reason why it is not used."""
    (raw / "Happy" / "text.jpg").write_text("not an image")
    (raw / "loose.jpg").write_bytes(face)
    with open(os.fsencode(raw) + b"/Happy/\xff\xfe.jpg", "wb") as file:
        file.write(face + b"unusual name")

    report, table = ingest(raw)

    accepted = table[table["is_accepted"]]
    assert (report.num_files, report.num_new, report.num_decoded, report.num_to_retry) == (17, 17, 17, 0)
    assert accepted["label"].value_counts().to_dict() == dict.fromkeys(EMOTIONS, 3) | {"happy": 4}
    assert set(accepted["format"]) == {"JPEG"}
    assert (accepted["width_px"] == 96).all()
    assert table.loc["Happy/\\xff\\xfe.jpg", "is_accepted"]
    assert table["reason_code"].dropna().to_dict() == {
        "Happy/text.jpg": "unsupported_format",
        "loose.jpg": "unlabelled_file",
    }
    assert table["reason"].dropna().str.len().min() > 20


def test_ingest_reads_only_what_is_new(raw: Path, face: bytes) -> None:
    """A second run decodes nothing; one new file costs one."""
    ingest(raw)

    second, _ = ingest(raw)
    (raw / "Happy" / "new.jpg").write_bytes(face + b"\0")
    third, _ = ingest(raw)

    assert (second.num_new, second.num_cached, second.num_decoded) == (0, 15, 0)
    assert (third.num_new, third.num_cached, third.num_decoded) == (1, 15, 1)


def test_ingest_does_not_decode_known_content_again(raw: Path) -> None:
    """A file that was touched, renamed or copied is read, but not decoded."""
    ingest(raw)
    path = raw / "Angry" / "0.jpg"

    shutil.copyfile(path, path.with_name("copy.jpg"))
    os.utime(path, (1, 1))
    report, table = ingest(raw)

    assert (report.num_new, report.num_decoded) == (2, 0)
    assert table.loc["Angry/copy.jpg", "content_hash"] == table.loc["Angry/0.jpg", "content_hash"]


def test_ingest_drops_removed_files(raw: Path, face: bytes) -> None:
    """A removed file leaves the catalogue, also if another one comes at the same time."""
    (raw / "notes.txt").write_text("hello")
    ingest(raw)
    next(raw.glob("Sad/*.jpg")).unlink()
    (raw / "Sad" / "other.jpg").write_bytes(face + b"\0")
    (raw / "notes.txt").unlink()

    report, table = ingest(raw)

    assert (report.num_new, report.num_removed, report.num_cached) == (1, 1, 14)
    assert len(table) == 15


def test_fingerprint_follows_contents_and_labels_only(raw: Path) -> None:
    """Renaming changes nothing, relabelling does."""
    before, _ = ingest(raw)
    path = next(raw.glob("Fear/*.jpg"))
    path = path.rename(path.with_name("other name.jpg"))
    renamed, _ = ingest(raw)
    path.rename(raw / "Sad" / path.name)
    relabelled, _ = ingest(raw)

    assert renamed.fingerprint == before.fingerprint
    assert relabelled.fingerprint != before.fingerprint


def test_ingest_returns_the_signature_of_its_walk(raw: Path, face: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that arrives after the walk makes the folder look new to a sensor."""
    real_compare = near_duplicates.compare_new_contents

    def add_a_file(store_: Store) -> int:
        (raw / "Happy" / "late.jpg").write_bytes(face)
        return real_compare(store_)

    assert ingest(raw)[0].state == folder_state(raw)
    before = folder_state(raw)
    monkeypatch.setattr(catalogue, "compare_new_contents", add_a_file)
    during, _ = ingest(raw)

    assert during.state == before
    assert folder_state(raw) != before


def test_ingest_takes_unreadable_files_later(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without permission, or one that was being written, is listed and taken by the next run."""
    real_open = os.open

    def interfere(path: object, *rest: int) -> int:
        if isinstance(path, bytes) and path.endswith(b"/0.jpg"):
            raise PermissionError(13, "Permission denied")
        if isinstance(path, bytes) and path.endswith(b"/1.jpg"):
            with (raw / "Angry" / "1.jpg").open("ab") as file:
                file.write(b"more")
        return real_open(path, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("os.open", interfere)
        _, before = ingest(raw)
    report, after = ingest(raw)

    assert before["reason_code"].dropna().to_dict() == {
        "Angry/0.jpg": "unreadable_file",
        "Angry/1.jpg": "still_changing",
    }
    assert after["is_accepted"].all()
    assert report.num_new == 2


def test_ingest_tries_images_again_for_which_memory_was_short(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rejected by its hash, an image would be lost permanently."""

    def fail(_: bytes) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(decode, "decode_image", fail)
        report, table = ingest(raw)
    assert set(table["reason_code"]) == {"out_of_memory"}
    assert (report.num_to_retry, report.state) == (15, None)

    assert ingest(raw)[0].num_decoded == 15


def test_ingest_with_worker_processes_gives_the_same(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding in other processes changes no row."""
    _, alone = ingest(raw)
    shutil.rmtree(raw.parent / "catalogue")
    monkeypatch.setattr(decode_pool, "PARALLEL_FROM_FILES", 0)
    monkeypatch.setattr(catalogue, "BATCH_FILES", 4)

    _, together = ingest(raw)

    pd.testing.assert_frame_equal(together, alone)


def test_an_interrupted_ingest_is_completed(raw: Path, face: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was stored but not published appears after the next run, though that run finds nothing new."""
    ingest(raw)
    (raw / "Happy" / "late.jpg").write_bytes(face + b"late")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(catalogue, "export_catalogue", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ingest(raw)
    report, table = ingest(raw)

    assert report.num_new == 0
    assert "Happy/late.jpg" in table.index


def test_ingest_without_a_folder_says_what_to_do(tmp_path: Path) -> None:
    """A missing raw/ is rejected with the remedy."""
    with pytest.raises(UnusableDataError, match="make demo"):
        ingest_images(DataPaths(tmp_path))


def test_a_data_root_may_have_any_name(raw: Path) -> None:
    """Characters that have a meaning in a URI are part of a name here."""
    root = raw.parent / "50%25 a#b? c"
    shutil.copytree(raw, root / "raw")

    assert ingest_images(DataPaths(root)).num_decoded == 15


def test_a_damaged_table_is_published_again(raw: Path) -> None:
    """A power cut may leave an empty file under its name."""
    ingest(raw)
    (raw.parent / "catalogue" / TABLE_NAME).write_bytes(b"")

    _, table = ingest(raw)

    assert len(table) == 15


def test_files_of_an_unreadable_folder_stay(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read of it before stays, and the folder is listed; a failing disk is tried again."""
    _, before = ingest(raw)
    real_scandir = os.scandir

    def fail(path: object, code: int) -> object:
        if isinstance(path, bytes) and path.endswith(b"/Sad"):
            raise OSError(code, os.strerror(code))
        return real_scandir(path)  # type: ignore[call-overload]

    for code, reason, num_to_retry in ((13, "unreadable_file", 0), (5, "failed_read", 1)):
        with monkeypatch.context() as patch:
            patch.setattr("os.scandir", lambda path, code=code: fail(path, code))
            report, during = ingest(raw)
        assert (report.num_removed, report.num_to_retry) == (0, num_to_retry)
        assert (report.state is None) == bool(num_to_retry)
        assert during.loc["Sad", "reason_code"] == reason
        assert during["is_accepted"].sum() == 15
    _, after = ingest(raw)
    pd.testing.assert_frame_equal(after, before)


def test_another_decoder_reads_everything_again(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels of older code would differ from what the service sees; equal ones stay where they are."""
    first, before = ingest(raw)
    size_bytes = (raw.parent / "catalogue" / "pixels.bin").stat().st_size
    change_decoder(monkeypatch, "newer")
    same, table = ingest(raw)
    assert (same.num_decoded, same.fingerprint) == (15, first.fingerprint)
    pd.testing.assert_frame_equal(table, before)

    real = decode.decode_image

    def inverted(content: bytes) -> object:
        image = real(content)
        return dataclasses.replace(image, pixels=255 - image.pixels)

    monkeypatch.setattr(decode, "decode_image", inverted)
    change_decoder(monkeypatch, "newest")
    other, _ = ingest(raw)
    again, _ = ingest(raw)

    assert (other.num_decoded, again.num_decoded) == (15, 0)
    assert other.fingerprint != first.fingerprint
    assert (raw.parent / "catalogue" / "pixels.bin").stat().st_size == 2 * size_bytes


def test_another_decoder_may_reject_half_of_a_pair(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other image then has no near-duplicate."""
    path = next(raw.glob("Happy/*.jpg"))
    Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path.with_suffix(".png"))
    _, before = ingest(raw)
    assert before["near_duplicate_group"].notna().sum() == 2
    real = decode.decode_image

    def stricter(content: bytes) -> object:
        if content.startswith(b"\x89PNG"):
            raise UnreadableImageError("no longer")
        return real(content)

    change_decoder(monkeypatch, "newer")
    monkeypatch.setattr(decode, "decode_image", stricter)

    _, after = ingest(raw)

    assert after["is_accepted"].sum() == 15
    assert after["near_duplicate_group"].isna().all()


def test_files_that_the_new_decoder_cannot_read_are_dropped(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If their folder is unreadable after the decoder has changed, only pixels of the old one are known."""
    ingest(raw)
    change_decoder(monkeypatch, "newer")
    real_scandir = os.scandir

    def fail(path: object) -> object:
        if isinstance(path, bytes) and path.endswith(b"/Sad"):
            raise PermissionError(13, "Permission denied")
        return real_scandir(path)  # type: ignore[call-overload]

    monkeypatch.setattr("os.scandir", fail)
    report, table = ingest(raw)

    assert (report.num_removed, table["is_accepted"].sum()) == (3, 12)
    with Store(raw.parent / "catalogue" / STORE_NAME) as opened:
        assert not opened.has_outdated_decoder()


def test_too_many_near_duplicates_are_rejected_until_removed(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frames of a film would take gigabytes; the message names one, and removing them is enough."""
    monkeypatch.setattr(near_duplicates, "MAX_PAIRS", 10)
    film = raw / "Happy" / "film"
    film.mkdir()
    for number in range(8):
        Image.new("L", (64, 64), number).save(film / f"{number}.png")

    for _ in range(2):
        with pytest.raises(UnusableDataError, match=r"More than 10 pairs .* raw/Happy/film/\d.png"):
            ingest(raw)
    shutil.rmtree(film)
    report, table = ingest(raw)

    assert (report.num_removed, len(table)) == (8, 15)
