"""Images are stored for labelling, without delaying the prediction log, and deleted in time."""

from __future__ import annotations

import errno
import shutil
import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from emotion_service import image_log
from emotion_service.app import EmotionApp
from emotion_service.image_log import ImageLog, remove_old_images
from tests.service.conftest import logged, make_app, records_below
from tests.service.test_prediction_log import Counts


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_stored_images_are_the_uploaded_bytes(client: TestClient, app: EmotionApp, face: bytes) -> None:
    """Each is named after its prediction."""
    name = client.post("/predict", files={"image": face}).json()["prediction_id"]
    app.close()

    (path,) = (app.settings.data_dir / "predictions" / "images").rglob("*.*")
    assert path.name == f"{name}.jpeg"
    assert path.read_bytes() == face


def test_images_are_deleted_after_their_retention(tmp_path: Path) -> None:
    """Only folders of days before the limit are deleted."""
    for day in ("2026-01-01", "2026-01-09", "2026-01-10", "notes"):
        (tmp_path / day).mkdir()

    remove_old_images(tmp_path, date(2026, 1, 10), 1)

    assert {path.name for path in tmp_path.iterdir()} == {"2026-01-09", "2026-01-10", "notes"}


def test_old_images_are_deleted_even_if_none_are_stored_now(bundle_dir: Path, tmp_path: Path) -> None:
    """Their retention holds whatever the service is started with later."""
    old = tmp_path / "predictions" / "images" / "2020-01-01"
    old.mkdir(parents=True)
    make_app(tmp_path, bundle_dir, store_images=False).close()

    assert not old.exists()


def test_records_do_not_wait_for_images(
    app: EmotionApp, client: TestClient, face: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While no image can be written, every record is written: a kill would not lose it."""
    gate = threading.Event()
    monkeypatch.setattr(Path, "write_bytes", lambda *_: gate.wait(20))
    for _ in range(20):
        assert client.post("/predict", files={"image": face}).status_code == 200

    wait_until(lambda: len(records_below(app.settings.data_dir)) == 20)
    gate.set()
    app.close()


def test_an_unwritable_disk_loses_only_the_image(app: EmotionApp, client: TestClient, face: bytes) -> None:
    """The prediction and its record exist; the lost image is counted; later images are written again."""
    folder = app.settings.data_dir / "predictions" / "images"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("in the way")

    assert client.post("/predict", files={"image": face}).status_code == 200
    wait_until(lambda: 'result="image_lost"} 1.0' in client.get("/metrics").text)
    folder.unlink()
    name = client.post("/predict", files={"image": face}).json()["prediction_id"]

    assert len(logged(app)) == 2
    assert [path.stem for path in folder.rglob("*.jpeg")] == [name]


def test_a_deleted_folder_is_created_again(app: EmotionApp, client: TestClient, face: bytes) -> None:
    """Somebody may delete the images at any time; at most one is lost."""
    folder = app.settings.data_dir / "predictions" / "images"
    client.post("/predict", files={"image": face})
    wait_until(lambda: list(folder.rglob("*.jpeg")))
    shutil.rmtree(folder)

    for _ in range(3):
        client.post("/predict", files={"image": face})

    logged(app)
    assert len(list(folder.rglob("*.jpeg"))) >= 2


def test_a_nearly_full_disk_gets_no_images(
    app: EmotionApp, client: TestClient, face: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are dropped and counted; the remaining space is for the prediction log."""
    usage = SimpleNamespace(total=100 * 2**30, free=2**29)
    monkeypatch.setattr("emotion_service.image_log.shutil.disk_usage", lambda _: usage)

    client.post("/predict", files={"image": face})

    wait_until(lambda: 'result="image_lost"} 1.0' in client.get("/metrics").text)
    assert len(logged(app)) == 1


def test_only_so_many_images_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk is slow; what was written makes room for others."""
    monkeypatch.setattr(image_log, "_MAX_QUEUED_BYTES", 25)
    counts, gate = Counts(), threading.Event()
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda path, target: gate.wait(20) and replace(path, target))
    log = ImageLog(tmp_path, 30, counts)
    for number in range(3):
        log.append(str(number), "PNG", bytes(10))
    wait_until(lambda: counts == {"image_lost": 1})
    gate.set()
    wait_until(lambda: counts == {"image_lost": 1, "image_written": 2})
    for number in range(3, 9):
        log.append(str(number), "PNG", bytes(10))
        wait_until(lambda expected=number: counts["image_written"] == expected)
    log.close()

    assert counts == {"image_lost": 1, "image_written": 8}


def test_old_images_are_deleted_each_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service runs for months."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    monkeypatch.setattr(image_log, "datetime", SimpleNamespace(now=lambda _: now))
    counts = Counts()
    log = ImageLog(tmp_path, 1, counts)
    log.append("a", "PNG", b"x")
    wait_until(lambda: counts["image_written"] == 1)
    now += timedelta(days=2)
    log.append("b", "PNG", b"x")
    wait_until(lambda: counts["image_written"] == 2)
    log.close()

    wait_until(lambda: [path.name for path in tmp_path.iterdir()] == ["2026-01-03"])


@pytest.mark.parametrize(("gib", "is_written"), [(0.3, True), (0.4, True), (0.2, False)])
def test_a_small_disk_may_be_fuller(
    tmp_path: Path, gib: float, is_written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A twentieth of five GiB is enough there."""
    usage = SimpleNamespace(total=5 * 2**30, free=gib * 2**30)
    monkeypatch.setattr("emotion_service.image_log.shutil.disk_usage", lambda _: usage)
    counts = Counts()
    log = ImageLog(tmp_path, 30, counts)
    log.append("a", "PNG", b"x")
    log.close()

    assert counts == {"image_written" if is_written else "image_lost": 1}


def test_half_written_images_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    counts = Counts()
    log = ImageLog(tmp_path, 30, counts)
    log.append("a", "PNG", b"content")
    log.close()

    assert counts == {"image_lost": 1}
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
