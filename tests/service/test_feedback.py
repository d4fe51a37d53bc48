"""Each prediction gets one label, from whichever worker."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from emotion_service.app import EmotionApp
from emotion_service.errors import RequestError
from emotion_service.feedback import FeedbackStore, parse_feedback
from emotion_service.schemas import Feedback
from emotion_service.storage import LocalStorage


def test_a_label_is_accepted_once(client: TestClient, app: EmotionApp, face: bytes) -> None:
    """The first label of a prediction is stored, a second is rejected."""
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
        (400, "malformed_json", b'{"prediction_id": "\\ud800", "emotion": "sad"}', "application/json"),
        (404, "unknown_prediction", b'{"prediction_id": "", "emotion": "sad"}', "application/json"),
        (413, "body_too_large", b" " * 5000, "application/json"),
        (415, "unsupported_media_type", b"{}", "text/plain"),
        (422, "unknown_emotion", b'{"prediction_id": "x", "emotion": "neutral"}', "application/json"),
    ],
)  # fmt: skip
def test_invalid_feedback_is_rejected(
    client: TestClient, app: EmotionApp, status: int, code: str, content: bytes, media_type: str
) -> None:
    """Every invalid body gets its status and leaves no file."""
    response = client.post("/feedback", content=content, headers={"Content-Type": media_type})

    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert not list((app.settings.data_dir / "feedback").rglob("*.json"))


def test_workers_share_ids_and_only_one_label_wins(tmp_path: Path) -> None:
    """Stores with one folder share their key; of twenty concurrent labels exactly one is stored."""
    stores = [FeedbackStore(LocalStorage(tmp_path)) for _ in range(4)]
    name = stores[0].new_id()

    def give(number: int) -> int:
        try:
            stores[number % 4].save(Feedback(prediction_id=name, emotion="sad"))
        except RequestError as error:
            return error.status
        return 200

    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(give, range(20)))

    assert sorted(set(statuses)) == [200, 409]
    assert statuses.count(200) == 1
    assert (tmp_path / "feedback" / ".key").stat().st_mode & 0o077 == 0
    assert not list(tmp_path.rglob("*.tmp"))


def test_ids_are_unique_and_hexadecimal(tmp_path: Path) -> None:
    """40 digits each."""
    store = FeedbackStore(LocalStorage(tmp_path))
    names = {store.new_id() for _ in range(1000)}

    assert len(names) == 1000
    assert all(len(name) == 40 and int(name, 16) for name in names)


def test_a_read_only_folder_rejects_labels_for_now(tmp_path: Path) -> None:
    """The client is told to try again; the id stays valid."""
    (tmp_path / "feedback").write_text("a file where the folder should be")
    store = FeedbackStore(LocalStorage(tmp_path))

    with pytest.raises(RequestError) as caught:
        store.save(Feedback(prediction_id=store.new_id(), emotion="sad"))
    assert (caught.value.status, caught.value.code) == (503, "storage_unavailable")


@pytest.mark.parametrize(
    ("text", "emotion"),
    [(" sad ", "Sad"), ("ÜBERRASCHT", "überrascht"), ("u\u0308berrascht", "überrascht"), ("very glad", "very glad")],
)
def test_a_label_is_one_of_the_models_classes(text: str, emotion: str) -> None:
    """Spaces around it and capitals do not matter; the class is stored as the model names it."""
    content = json.dumps({"prediction_id": "x", "emotion": text}).encode()

    assert parse_feedback(content, ["Sad", "überrascht", "very glad"]).emotion == emotion
    with pytest.raises(RequestError, match="must be one of no, yes"):
        parse_feedback(content, ["no", "yes"])


def test_an_id_of_other_characters_is_unknown(tmp_path: Path) -> None:
    """A signature that is no ASCII cannot be compared."""
    store = FeedbackStore(LocalStorage(tmp_path))

    with pytest.raises(RequestError) as caught:
        store.save(Feedback(prediction_id="é" * 40, emotion="sad"))
    assert (caught.value.status, caught.value.code) == (404, "unknown_prediction")


def test_a_label_has_its_time_and_words(tmp_path: Path) -> None:
    """The time tells whether it was requested; a class may have any letters."""
    store = FeedbackStore(LocalStorage(tmp_path))
    store.save(Feedback(prediction_id=(name := store.new_id()), emotion="überrascht"))

    text = (tmp_path / "feedback" / name[:2] / f"{name}.json").read_text()
    assert abs(datetime.fromisoformat(json.loads(text)["time"]).timestamp() - time.time()) < 60
