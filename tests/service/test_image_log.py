"""Images are stored for labelling, without delaying the prediction log, and deleted in time."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from emotion_service.app import EmotionApp
from emotion_service.image_log import remove_old_images
from tests.service.conftest import logged, make_app, records_below


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
