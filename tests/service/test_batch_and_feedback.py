from __future__ import annotations

import dataclasses
import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from emotion_assets.core.images import MAX_IMAGE_BYTES, NeedsWorkerThreadError
from emotion_service.app import EmotionApp
from emotion_service.feedback import FeedbackStore
from emotion_service.settings import Settings
from emotion_service.uploads import MAX_BATCH_BYTES, MAX_BATCH_IMAGES
from tests.service.conftest import logged


@pytest.fixture
def app(bundle_dir: Path, tmp_path: Path) -> EmotionApp:
    """The application with a model, keeping images below `tmp_path`."""
    emotion_app = EmotionApp(Settings(tmp_path, 1, max_concurrency=4, timeout_seconds=20, keep_images=True))
    emotion_app.load(bundle_dir)
    return emotion_app


def test_a_batch_is_answered_in_order(client: TestClient, app: EmotionApp, faces: list[tuple[str, bytes]]) -> None:
    """Each image has its own answer or its own error, in the order of the parts, as a single request would."""
    contents = [content for _, content in faces[:6]]
    parts = [("images", contents[0]), ("images", b"bad"), *(("images", content) for content in contents[1:])]
    parts.append(("images", b""))

    response = client.post("/predict_batch", files=parts)
    alone = [client.post("/predict", files={"image": content}).json() for content in contents]

    items = response.json()
    assert response.status_code == 200
    assert [item.get("error", {}).get("code") for item in items] == [
        None,
        "unsupported_format",
        *[None] * 5,
        "empty_image",
    ]
    answered = [item for item in items if "error" not in item]
    for together, single in zip(answered, alone, strict=True):
        assert together["emotion"] == single["emotion"]
        assert together["features"] == single["features"]
        assert together["probabilities"] == pytest.approx(single["probabilities"], abs=1e-6)
    assert len(logged(app)) == 12


@pytest.mark.parametrize(
    ("status", "code", "parts"),
    [
        (400, "empty_image", [("image", b"x")]),
        (400, "too_many_images", [("images", b"x")] * (MAX_BATCH_IMAGES + 1)),
        (400, "malformed_form", [("images", b"x")] * (MAX_BATCH_IMAGES + 50)),
        (413, "image_too_large", [("images", bytes(8 * 2**20))] * 5),
    ],
)
def test_a_senseless_batch_is_rejected(
    client: TestClient, status: int, code: str, parts: list[tuple[str, bytes]]
) -> None:
    """No images, too many of them, or too many bytes."""
    response = client.post("/predict_batch", files=parts)

    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_one_large_image_of_a_batch_is_rejected_alone(client: TestClient, face: bytes) -> None:
    """An image over its own limit costs the others nothing."""
    assert MAX_IMAGE_BYTES + len(face) < MAX_BATCH_BYTES
    items = client.post("/predict_batch", files=[("images", bytes(MAX_IMAGE_BYTES + 1)), ("images", face)]).json()

    assert items[0]["error"]["code"] == "image_too_large"
    assert "emotion" in items[1]


def test_a_label_is_accepted_once(client: TestClient, app: EmotionApp, face: bytes) -> None:
    """The first label of a prediction is kept, the second rejected; the file holds it whole."""
    name = client.post("/predict", files={"image": face}).json()["prediction_id"]

    first = client.post("/feedback", json={"prediction_id": name, "emotion": "Sad "})
    second = client.post("/feedback", json={"prediction_id": name, "emotion": "happy"})

    assert first.json() == {"prediction_id": name, "emotion": "sad", "state": "accepted"}
    assert (second.status_code, second.json()["error"]["code"]) == (409, "label_exists")
    (path,) = (app.settings.data_dir / "feedback").rglob("*.json")
    assert json.loads(path.read_text())["emotion"] == "sad"


@pytest.mark.parametrize(
    ("status", "code", "content", "media_type"),
    [
        (400, "malformed_json", b"", "application/json"),
        (400, "malformed_json", b"{", "application/json"),
        (400, "malformed_json", b"[1]", "application/json"),
        (400, "malformed_json", b'{"prediction_id": 1, "emotion": "sad"}', "application/json"),
        (400, "malformed_json", b"[" * 4000, "application/json"),
        (400, "malformed_json", b"\xff\xfe", "application/json"),
        (404, "unknown_prediction", b'{"prediction_id": "x", "emotion": "sad"}', "application/json"),
        (404, "unknown_prediction", b'{"prediction_id": "../../etc/passwd", "emotion": "sad"}', "application/json"),
        (404, "unknown_prediction", b'{"prediction_id": "\\ud800", "emotion": "sad"}', "application/json"),
        (404, "unknown_prediction", b'{"prediction_id": "", "emotion": "sad"}', "application/json"),
        (413, "body_too_large", b" " * 5000, "application/json"),
        (415, "unsupported_media_type", b"{}", "text/plain"),
        (422, "unknown_emotion", b'{"prediction_id": "x", "emotion": "neutral"}', "application/json"),
    ],
)  # fmt: skip
def test_senseless_feedback_is_rejected(
    client: TestClient, app: EmotionApp, status: int, code: str, content: bytes, media_type: str
) -> None:
    """Every wrong body gets its status and leaves no file."""
    response = client.post("/feedback", content=content, headers={"Content-Type": media_type})

    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert not list((app.settings.data_dir / "feedback").rglob("*.json"))


def test_workers_know_each_others_ids_and_only_one_label_wins(tmp_path: Path) -> None:
    """Boxes over one folder share their key; of twenty labels at once exactly one is kept."""
    boxes = [FeedbackStore(tmp_path) for _ in range(4)]
    name = boxes[0].new_id()

    def give(number: int) -> int:
        try:
            boxes[number % 4].keep(name, "sad")
        except Exception as error:  # noqa: BLE001
            return int(getattr(error, "status", 0))
        return 200

    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(give, range(20)))

    assert sorted(set(statuses)) == [200, 409]
    assert statuses.count(200) == 1
    assert (tmp_path / ".key").stat().st_mode & 0o077 == 0
    assert not list(tmp_path.rglob("*.tmp"))


def test_kept_images_are_the_uploaded_bytes(client: TestClient, app: EmotionApp, face: bytes) -> None:
    """With the setting on, each answered image lies under its prediction's id; without it, none does."""
    name = client.post("/predict", files={"image": face}).json()["prediction_id"]
    app.close()

    (path,) = (app.settings.data_dir / "predictions" / "images").rglob("*.*")
    assert path.name == f"{name}.jpeg"
    assert path.read_bytes() == face


def test_images_are_removed_after_their_days(tmp_path: Path) -> None:
    """Only folders of days before the limit go."""
    from datetime import date

    from emotion_service.image_log import remove_old_images

    for day in ("2026-01-01", "2026-01-09", "2026-01-10", "notes"):
        (tmp_path / day).mkdir()

    remove_old_images(tmp_path, date(2026, 1, 10), 1)

    assert {path.name for path in tmp_path.iterdir()} == {"2026-01-09", "2026-01-10", "notes"}


def test_a_service_that_keeps_no_more_images_removes_the_old_ones(bundle_dir: Path, tmp_path: Path) -> None:
    """They were promised to go after so many days, whatever the service is started with later."""
    old = tmp_path / "predictions" / "images" / "2020-01-01"
    old.mkdir(parents=True)
    emotion_app = EmotionApp(Settings(tmp_path, 1, max_concurrency=4, timeout_seconds=20, keep_images=False))
    emotion_app.load(bundle_dir)
    emotion_app.close()

    assert not old.exists()


def test_records_do_not_wait_for_images(app: EmotionApp, client: TestClient, face: bytes) -> None:
    """While no image can be written yet, every answer's record is on disk: a kill would not lose it."""
    import threading
    import time

    from emotion_service.image_log import ImageLog

    gate = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageLog, "_write", lambda *_: gate.wait(20))
        for _ in range(20):
            assert client.post("/predict", files={"image": face}).status_code == 200
        paths = app.settings.data_dir / "predictions"
        for _ in range(100):
            written = [line for path in paths.rglob("*.jsonl") for line in path.read_text().splitlines()]
            if len(written) == 20:
                break
            time.sleep(0.05)
        gate.set()

    assert len(written) == 20


def test_a_disk_that_takes_no_image_costs_only_the_image(app: EmotionApp, client: TestClient, face: bytes) -> None:
    """The answer and its record are there; the lost image is counted, and a disk that is well again takes the next."""
    folder = app.settings.data_dir / "predictions" / "images"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("in the way")

    assert client.post("/predict", files={"image": face}).status_code == 200
    while 'result="image_lost"} 1.0' not in client.get("/metrics").text:
        time.sleep(0.01)
    folder.unlink()
    name = client.post("/predict", files={"image": face}).json()["prediction_id"]

    assert len(logged(app)) == 2
    assert [path.stem for path in folder.rglob("*.jpeg")] == [name]


def test_a_folder_of_images_that_somebody_removes_begins_anew(app: EmotionApp, client: TestClient, face: bytes) -> None:
    """Who asks to be forgotten costs one image at most, and not those of the rest of the day."""
    folder = app.settings.data_dir / "predictions" / "images"
    client.post("/predict", files={"image": face})
    while not list(folder.rglob("*.jpeg")):
        time.sleep(0.01)
    shutil.rmtree(folder)

    for _ in range(3):
        client.post("/predict", files={"image": face})

    logged(app)
    assert len(list(folder.rglob("*.jpeg"))) >= 2


def test_the_log_keeps_the_room_that_is_left(
    app: EmotionApp, client: TestClient, face: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk that is nearly full images are left out and counted."""
    usage = SimpleNamespace(total=100 * 2**30, free=2**29)
    monkeypatch.setattr("emotion_service.image_log.shutil.disk_usage", lambda _: usage)

    client.post("/predict", files={"image": face})

    while 'result="image_lost"} 1.0' not in client.get("/metrics").text:
        time.sleep(0.01)
    assert len(logged(app)) == 1


def test_images_that_nobody_waits_for_keep_their_places(
    app: EmotionApp, face: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that timed out continues in its thread; its memory is still taken, so no other may begin."""
    gate, running, most = threading.Event(), [], []

    def slow(*_: object, fast_path_only: bool = False) -> None:
        if fast_path_only:
            raise NeedsWorkerThreadError
        running.append(1)
        most.append(len(running))
        gate.wait(20)
        running.pop()

    assert app.worker
    monkeypatch.setattr(app.worker.answerer, "answer", slow)
    app.settings = dataclasses.replace(app.settings, timeout_seconds=0.1, max_concurrency=64)
    with TestClient(app.routes()) as client:
        statuses = {client.post("/predict", files={"image": face}).status_code for _ in range(12)}
    gate.set()

    assert statuses == {504}
    assert max(most) == 4
