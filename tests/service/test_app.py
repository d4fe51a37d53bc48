from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.image_stats import STATISTICS
from emotion_assets.core.images import MAX_IMAGE_BYTES
from emotion_service.app import EmotionApp
from emotion_service.settings import Settings
from tests.service.conftest import logged


@pytest.fixture
def app(bundle_dir: Path, tmp_path: Path) -> EmotionApp:
    """The application with a model, logging below `tmp_path`."""
    emotion_app = EmotionApp(Settings(tmp_path, num_workers=1, max_concurrency=4, timeout_seconds=20))
    emotion_app.load(bundle_dir)
    return emotion_app


def rejection(response: httpx.Response) -> str:
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message"}
    assert len(body["error"]["message"]) > 10
    return str(body["error"]["code"])


def test_predict_answers_with_the_contract(client: TestClient, face: bytes, bundle_dir: Path) -> None:
    """Five probabilities that sum to 1, the best of them named, features, version and an id."""
    body = client.post("/predict", files={"image": face}).json()

    assert set(body) == {"prediction_id", "emotion", "probabilities", "model_version", "features"}
    assert list(body["probabilities"]) == list(EMOTIONS)
    assert sum(body["probabilities"].values()) == pytest.approx(1, abs=1e-9)
    assert body["probabilities"][body["emotion"]] == max(body["probabilities"].values())
    assert tuple(body["features"]) == STATISTICS
    assert body["model_version"] == bundle_dir.name
    assert body["prediction_id"] != client.post("/predict", files={"image": face}).json()["prediction_id"]


def test_predict_adds_a_heatmap_when_asked(client: TestClient, face: bytes) -> None:
    """The heatmap is a grid of shares; nobody who did not ask gets one."""
    asked = client.post("/predict?heatmap=1", files={"image": face}).json()["heatmap"]

    assert np.array(asked).ndim == 2
    assert 0 <= np.min(asked) <= np.max(asked) <= 1
    assert "heatmap" not in client.post("/predict?heatmap=0", files={"image": face}).json()


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


JPEG = {"Content-Type": "image/jpeg"}
FORM = "multipart/form-data; boundary=x"


@pytest.mark.parametrize(
    ("status", "code", "content", "media_type"),
    [
        (400, "empty_image", b"", "image/png"),
        (400, "empty_image", b"", None),
        (400, "empty_image", b"--x--\r\n", FORM),
        (400, "empty_image", b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n\r\n--x--\r\n', FORM),
        (400, "empty_image", b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhi\r\n--x--\r\n', FORM),
        (400, "malformed_form", b"hello", "multipart/form-data"),
        (400, "malformed_form", b"hello", FORM),
        (415, "unsupported_format", b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nhttp://127.0.0.1/\r\n--x--\r\n', FORM),
        (400, "several_images", b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\na\r\n--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nb\r\n--x--\r\n', FORM),
        (415, "unsupported_format", b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n\\ud800\r\n--x--\r\n', FORM + "; charset=unicode_escape"),
        (415, "unsupported_media_type", b'{"image": "http://127.0.0.1/"}', "application/json"),
        (415, "unsupported_media_type", b"image=x", "application/x-www-form-urlencoded"),
        (415, "unsupported_media_type", b"hello", "text/plain"),
        (415, "unsupported_media_type", b"\x80\x04.", "application/vnd.bentoml+pickle"),
        (415, "unsupported_media_type", b"hello", None),
        (415, "unsupported_format", b"hello", "image/jpeg"),
        (415, "unsupported_format", b"<svg/>", "image/svg+xml"),
        (422, "unreadable_image", b"\xff\xd8\xff\xe0 not really", "image/jpeg"),
        (422, "unreadable_image", png(3, 3), "image/png"),
        (413, "image_too_large", png(20001, 9), "image/png"),
        (413, "image_too_large", bytes(MAX_IMAGE_BYTES + 1), "image/png"),
        (413, "image_too_large", bytes(MAX_IMAGE_BYTES + 70_000), FORM),
    ],
)  # fmt: skip
def test_predict_rejects_with_the_right_status(
    client: TestClient, app: EmotionApp, status: int, code: str, content: bytes, media_type: str | None
) -> None:
    """Every bad upload gets its status and the contract's body, and leaves no record."""
    headers = {"Content-Type": media_type} if media_type else {}

    response = client.post("/predict", content=content, headers=headers)

    assert response.status_code == status, response.text
    assert rejection(response) == code
    assert logged(app) == []


def test_predict_rejects_compressed_bodies(client: TestClient, face: bytes) -> None:
    """A body that must be unpacked first could be a bomb."""
    response = client.post("/predict", content=face, headers={"Content-Type": "image/jpeg", "Content-Encoding": "gzip"})

    assert response.status_code == 415


def test_predict_counts_bytes_while_they_stream(app: EmotionApp) -> None:
    """A body of unknown length is never held beyond the limit, and cut off long before its end."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 40 * MAX_IMAGE_BYTES:
            sent += 2**20
            yield bytes(2**20)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app.routes())
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/predict", content=endless(), headers={"Content-Type": "image/jpeg"})

    response = asyncio.run(ask())

    assert response.status_code == 413
    assert sent < 10 * MAX_IMAGE_BYTES


def test_every_answer_is_logged_once(client: TestClient, app: EmotionApp, face: bytes) -> None:
    """Ten answers leave ten records with the answers' values and no image."""
    answers = [client.post("/predict", files={"image": face}).json() for _ in range(10)]
    client.post("/predict", content=b"bad", headers={"Content-Type": "image/png"})

    records = logged(app)

    assert [record["prediction_id"] for record in records] == [answer["prediction_id"] for answer in answers]
    for record, answer in zip(records, answers, strict=True):
        assert record["probabilities"] == answer["probabilities"]
        assert record["features"] == answer["features"]
        assert len(str(record["image_sha256"])) == 64
        assert "heatmap" not in record


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
def test_wrong_methods_are_told_the_right_one(client: TestClient, method: str) -> None:
    """405 names what is allowed."""
    response = client.request(method, "/predict")

    assert response.status_code == 405
    assert response.headers["Allow"] == "POST"


def test_unknown_paths_are_not_found(client: TestClient) -> None:
    """404 has the contract's body, also for odd paths."""
    for path in ("/nope", "/../etc/passwd", "/predict/", "/%00", "/assets/x"):
        response = client.get(path)
        assert response.status_code == 404, path
        assert rejection(response) == "not_found"


def test_a_bug_is_answered_in_the_same_shape(app: EmotionApp, face: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should our own code fail, the client gets the error body and no traceback."""
    monkeypatch.setattr("emotion_service.inference.image_features", lambda _: 1 / 0)
    client = TestClient(app.routes(), raise_server_exceptions=False)

    response = client.post("/predict", files={"image": face})

    assert response.status_code == 500
    assert rejection(response) == "internal_error"
    assert "ZeroDivision" not in response.text


def test_without_a_model_the_service_says_so(tmp_path: Path, face: bytes) -> None:
    """503 until a model is loaded, with a hint when to come back."""
    client = TestClient(EmotionApp(Settings(tmp_path, 1, 4, 5)).routes())

    for response in (client.post("/predict", files={"image": face}), client.get("/model")):
        assert response.status_code == 503
        assert response.headers["Retry-After"]
        assert rejection(response) == "no_model"


def test_too_many_requests_at_once_are_told_to_wait(
    bundle_dir: Path, tmp_path: Path, face: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above the limit the answer is 429 with Retry-After, and the place is given back afterwards."""
    app = EmotionApp(Settings(tmp_path, 1, max_concurrency=1, timeout_seconds=20))
    app.load(bundle_dir)
    gate = threading.Event()
    real = app.model
    assert real
    predict = real.predict

    def slow(*arguments: object, **options: object) -> object:
        gate.wait(10)
        return predict(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(real, "predict", slow)

    async def ask() -> tuple[httpx.Response, httpx.Response, httpx.Response]:
        transport = httpx.ASGITransport(app.routes())
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            first = asyncio.create_task(client.post("/predict?face=find", content=face, headers=JPEG))
            await asyncio.sleep(0.1)
            second = await client.post("/predict?face=find", content=face, headers=JPEG)
            gate.set()
            return await first, second, await client.post("/predict?face=find", content=face, headers=JPEG)

    first, second, third = asyncio.run(ask())

    assert (first.status_code, second.status_code, third.status_code) == (200, 429, 200)
    assert second.headers["Retry-After"] == "1"


def test_slow_senders_keep_nobody_out(bundle_dir: Path, tmp_path: Path, face: bytes) -> None:
    """While four bodies are half sent at a limit of one answer at a time, another client is answered at once."""
    app = EmotionApp(Settings(tmp_path, 1, max_concurrency=1, timeout_seconds=20))
    app.load(bundle_dir)

    async def ask() -> tuple[httpx.Response, list[httpx.Response], httpx.Response]:
        gate = asyncio.Event()

        async def halves() -> AsyncIterator[bytes]:
            yield face[:100]
            await gate.wait()
            yield face[100:]

        transport = httpx.ASGITransport(app.routes())
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            slow = [asyncio.create_task(client.post("/predict", content=halves(), headers=JPEG)) for _ in range(4)]
            await asyncio.sleep(0.1)
            quick = await client.post("/predict", content=face, headers=JPEG)
            more = [asyncio.create_task(client.post("/predict", content=halves(), headers=JPEG)) for _ in range(4)]
            await asyncio.sleep(0.1)
            above = await client.post("/predict", content=face, headers=JPEG)
            gate.set()
            return quick, await asyncio.gather(*slow, *more), above

    quick, others, above = asyncio.run(ask())

    assert quick.status_code == 200
    assert above.status_code == 429
    assert {response.status_code for response in others} <= {200, 429}


def test_a_body_that_never_comes_times_out(bundle_dir: Path, tmp_path: Path) -> None:
    """A stalled upload is answered 504 and frees its place."""
    app = EmotionApp(Settings(tmp_path, 1, max_concurrency=1, timeout_seconds=0.2))
    app.load(bundle_dir)

    async def never() -> AsyncIterator[bytes]:
        await asyncio.sleep(60)
        yield b""

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app.routes())
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/predict", content=never(), headers={"Content-Type": "image/jpeg"})

    assert asyncio.run(ask()).status_code == 504


def test_model_facts_are_those_of_the_bundle(client: TestClient, bundle_dir: Path) -> None:
    """The facts name the version, the emotions and the scores."""
    facts = client.get("/model").json()

    assert facts["model_version"] == bundle_dir.name
    assert facts["emotions"] == list(EMOTIONS)
    assert set(facts["metrics"]) == {"val/loss", "val/accuracy", "val/macro_f1"}


def test_documentation_covers_every_route_and_is_true(client: TestClient, face: bytes) -> None:
    """Each documented route answers as documented, and each of our own routes is documented."""
    document = client.get("/docs.json").json()
    server_routes = {"/livez", "/readyz"}
    needs_token = {"/label_requests", "/label_image"}
    known = client.post("/predict", files={"image": face}).json()["prediction_id"]
    bodies = {
        "/predict": {"files": {"image": face}},
        "/predict_batch": {"files": [("images", face), ("images", b"bad")]},
        "/feedback": {"json": {"prediction_id": known, "emotion": "sad"}},
    }

    for path, methods in document["paths"].items():
        for method, described in methods.items():
            if path not in server_routes | needs_token:
                response = client.request(method.upper(), path, **bodies.get(path, {}))
                assert response.status_code == 200, path
                assert "200" in described["responses"]
    ours = {"/", "/label", "/predict", "/predict_batch", "/feedback", "/model", "/docs.json", "/metrics"}
    assert set(document["paths"]) == ours | needs_token | server_routes
    schemas = document["components"]["schemas"]
    assert set(client.post("/predict?heatmap=1&face=find", files={"image": face}).json()) == set(
        schemas["Prediction"]["properties"]
    )
    assert set(client.get("/model").json()) == set(schemas["ModelInfo"]["properties"])


def test_page_needs_nothing_from_outside(client: TestClient) -> None:
    """The page is one file without links to other hosts."""
    response = client.get("/")

    assert response.headers["content-type"].startswith("text/html")
    assert "http://" not in response.text
    assert "https://" not in response.text
    assert all(emotion in response.text for emotion in EMOTIONS)


def test_load_rejects_a_model_that_answers_differently(app: EmotionApp, bundle_dir: Path, tmp_path: Path) -> None:
    """A model that fails its self-test does not replace the one that serves."""
    import shutil

    from emotion_assets.core.bundle import MANIFEST_NAME
    from emotion_assets.core.errors import BundleMismatchError

    other = Path(shutil.copytree(bundle_dir, tmp_path / bundle_dir.name))
    record = json.loads((other / MANIFEST_NAME).read_text())
    (other / MANIFEST_NAME).write_text(json.dumps(record | {"golden_prediction": [1, 0, 0, 0, 0]}))
    before = app.model

    with pytest.raises(BundleMismatchError):
        app.load(other)

    assert app.model is before
