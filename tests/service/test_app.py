from __future__ import annotations

import asyncio
import io
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.errors import BundleMismatchError
from emotion_assets.core.image_stats import STATISTICS
from emotion_assets.core.images import MAX_IMAGE_BYTES
from emotion_service.app import EmotionApp
from emotion_service.memory import MAX_LARGE_AT_ONCE
from emotion_service.uploads import MAX_BATCH_BYTES, MAX_BATCH_IMAGES
from tests.bundles import change_manifest
from tests.service.conftest import logged, make_app


def error_code(response: httpx.Response) -> str:
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message"}
    assert len(body["error"]["message"]) > 10
    return str(body["error"]["code"])


def test_predict_returns_a_prediction(client: TestClient, face: bytes, bundle_dir: Path) -> None:
    """Five probabilities that sum to 1, the most probable emotion, features, version and an id."""
    body = client.post("/predict", files={"image": face}).json()

    assert set(body) == {"prediction_id", "emotion", "probabilities", "model_version", "features"}
    assert list(body["probabilities"]) == list(EMOTIONS)
    assert sum(body["probabilities"].values()) == pytest.approx(1, abs=1e-9)
    assert body["probabilities"][body["emotion"]] == max(body["probabilities"].values())
    assert tuple(body["features"]) == STATISTICS
    assert body["model_version"] == bundle_dir.name
    assert body["prediction_id"] != client.post("/predict", files={"image": face}).json()["prediction_id"]


def test_predict_adds_a_heatmap_on_request(client: TestClient, face: bytes) -> None:
    """The heatmap is a grid of values from 0 to 1; without the option there is none."""
    heatmap = client.post("/predict?heatmap=1", files={"image": face}).json()["heatmap"]

    assert np.array(heatmap).ndim == 2
    assert 0 <= np.min(heatmap) <= np.max(heatmap) <= 1
    assert "heatmap" not in client.post("/predict?heatmap=0", files={"image": face}).json()


def async_client(app: EmotionApp) -> httpx.AsyncClient:
    """Return a client that can send requests concurrently."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app.routes()), base_url="http://test")


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
    """Every invalid upload gets its status and the error body, and leaves no record."""
    headers = {"Content-Type": media_type} if media_type else {}

    response = client.post("/predict", content=content, headers=headers)

    assert response.status_code == status, response.text
    assert error_code(response) == code
    assert logged(app) == []


def test_predict_rejects_compressed_bodies(client: TestClient, face: bytes) -> None:
    """A compressed body could be a decompression bomb."""
    response = client.post("/predict", content=face, headers={"Content-Type": "image/jpeg", "Content-Encoding": "gzip"})

    assert response.status_code == 415


def test_predict_counts_bytes_while_they_stream(app: EmotionApp) -> None:
    """A body of unknown length is not buffered beyond the limit, and cut off long before its end."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 40 * MAX_IMAGE_BYTES:
            sent += 2**20
            yield bytes(2**20)

    async def send() -> httpx.Response:
        async with async_client(app) as client:
            return await client.post("/predict", content=endless(), headers=JPEG)

    response = asyncio.run(send())

    assert response.status_code == 413
    assert sent < 10 * MAX_IMAGE_BYTES


def test_every_prediction_is_logged_once(client: TestClient, app: EmotionApp, face: bytes) -> None:
    """Ten predictions leave ten records with the same values."""
    predictions = [client.post("/predict", files={"image": face}).json() for _ in range(10)]
    client.post("/predict", content=b"bad", headers={"Content-Type": "image/png"})

    records = logged(app)

    assert [record["prediction_id"] for record in records] == [
        prediction["prediction_id"] for prediction in predictions
    ]
    for record, prediction in zip(records, predictions, strict=True):
        assert record["probabilities"] == prediction["probabilities"]
        assert record["features"] == prediction["features"]
        assert len(str(record["image_sha256"])) == 64
        assert "heatmap" not in record


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
def test_a_wrong_method_is_rejected(client: TestClient, method: str) -> None:
    """405 names the allowed methods."""
    response = client.request(method, "/predict")

    assert response.status_code == 405
    assert response.headers["Allow"] == "POST"


def test_unknown_paths_are_not_found(client: TestClient) -> None:
    """404 has the error body, also for malformed paths."""
    for path in ("/nope", "/../etc/passwd", "/predict/", "/%00", "/assets/x"):
        response = client.get(path)
        assert response.status_code == 404, path
        assert error_code(response) == "not_found"


def test_a_bug_has_the_same_error_body(app: EmotionApp, face: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """If our own code fails, the client gets the error body and no traceback."""
    monkeypatch.setattr("emotion_service.inference.image_features", lambda _: 1 / 0)
    client = TestClient(app.routes(), raise_server_exceptions=False)

    response = client.post("/predict", files={"image": face})

    assert response.status_code == 500
    assert error_code(response) == "internal_error"
    assert "ZeroDivision" not in response.text


def test_without_a_model_the_status_is_503(tmp_path: Path, face: bytes) -> None:
    """Until a model is loaded, the response says when to try again."""
    client = TestClient(make_app(tmp_path).routes())

    for response in (client.post("/predict", files={"image": face}), client.get("/model")):
        assert response.status_code == 503
        assert response.headers["Retry-After"]
        assert error_code(response) == "no_model"


def test_too_many_concurrent_requests_are_rejected(
    bundle_dir: Path, tmp_path: Path, face: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above the limit the status is 429 with Retry-After; the slot is free again afterwards."""
    app = make_app(tmp_path, bundle_dir, max_concurrency=1)
    gate = threading.Event()
    real = app.model
    assert real
    predict = real.predict

    def slow(*arguments: object, **options: object) -> object:
        gate.wait(10)
        return predict(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(real, "predict", slow)

    async def send() -> tuple[httpx.Response, httpx.Response, httpx.Response]:
        async with async_client(app) as client:
            first = asyncio.create_task(client.post("/predict?face=find", content=face, headers=JPEG))
            await asyncio.sleep(0.5)
            second = await client.post("/predict?face=find", content=face, headers=JPEG)
            gate.set()
            return await first, second, await client.post("/predict?face=find", content=face, headers=JPEG)

    first, second, third = asyncio.run(send())

    assert (first.status_code, second.status_code, third.status_code) == (200, 429, 200)
    assert second.headers["Retry-After"] == "1"


def test_slow_senders_block_no_other_client(bundle_dir: Path, tmp_path: Path, face: bytes) -> None:
    """While four bodies are half sent, with one slot for predictions, another client is served at once."""
    app = make_app(tmp_path, bundle_dir, max_concurrency=1)

    async def send() -> tuple[httpx.Response, list[httpx.Response], httpx.Response]:
        gate = asyncio.Event()

        async def halves() -> AsyncIterator[bytes]:
            yield face[:100]
            await gate.wait()
            yield face[100:]

        async with async_client(app) as client:
            slow = [asyncio.create_task(client.post("/predict", content=halves(), headers=JPEG)) for _ in range(4)]
            await asyncio.sleep(0.5)
            quick = await client.post("/predict", content=face, headers=JPEG)
            more = [asyncio.create_task(client.post("/predict", content=halves(), headers=JPEG)) for _ in range(4)]
            await asyncio.sleep(0.5)
            above = await client.post("/predict", content=face, headers=JPEG)
            gate.set()
            return quick, await asyncio.gather(*slow, *more), above

    quick, others, above = asyncio.run(send())

    assert quick.status_code == 200
    assert above.status_code == 429
    assert {response.status_code for response in others} <= {200, 429}


def test_a_body_that_never_comes_times_out(bundle_dir: Path, tmp_path: Path) -> None:
    """A stalled upload gets status 504."""
    app = make_app(tmp_path, bundle_dir, max_concurrency=1, timeout_seconds=0.2)

    async def never() -> AsyncIterator[bytes]:
        await asyncio.sleep(60)
        yield b""

    async def send() -> httpx.Response:
        async with async_client(app) as client:
            return await client.post("/predict", content=never(), headers=JPEG)

    assert asyncio.run(send()).status_code == 504


def test_model_info_is_that_of_the_bundle(client: TestClient, bundle_dir: Path) -> None:
    """It has the version, the classes and the scores."""
    info = client.get("/model").json()

    assert info["model_version"] == bundle_dir.name
    assert info["emotions"] == list(EMOTIONS)
    assert set(info["metrics"]) == {"val/loss", "val/accuracy", "val/macro_f1"}


def test_every_route_is_documented(client: TestClient, face: bytes) -> None:
    """Each documented route responds as documented, and each of our own routes is documented."""
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


def test_load_rejects_a_model_that_fails_its_self_test(app: EmotionApp, bundle_dir: Path, tmp_path: Path) -> None:
    """It does not replace the model that is served."""
    other = Path(shutil.copytree(bundle_dir, tmp_path / bundle_dir.name))
    change_manifest(other, golden_prediction=[1, 0, 0, 0, 0])
    before = app.model

    with pytest.raises(BundleMismatchError):
        app.load(other)

    assert app.model is before


def test_a_batch_keeps_its_order(client: TestClient, app: EmotionApp, faces: list[tuple[str, bytes]]) -> None:
    """Each image has the prediction or the error that a request of its own would have."""
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
    predictions = [item for item in items if "error" not in item]
    for together, single in zip(predictions, alone, strict=True):
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
def test_an_invalid_batch_is_rejected(
    client: TestClient, status: int, code: str, parts: list[tuple[str, bytes]]
) -> None:
    """It has no images, too many of them, or too many bytes."""
    response = client.post("/predict_batch", files=parts)

    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_one_large_image_of_a_batch_is_rejected_by_itself(client: TestClient, face: bytes) -> None:
    """An image over its own limit does not affect the others."""
    assert MAX_IMAGE_BYTES + len(face) < MAX_BATCH_BYTES
    items = client.post("/predict_batch", files=[("images", bytes(MAX_IMAGE_BYTES + 1)), ("images", face)]).json()

    assert items[0]["error"]["code"] == "image_too_large"
    assert "emotion" in items[1]


def test_timed_out_images_keep_their_threads(app: EmotionApp, face: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that timed out continues in its thread and still uses memory, so no other may start."""
    gate, running, most = threading.Event(), [], []

    def slow(*_: object) -> None:
        running.append(1)
        most.append(len(running))
        gate.wait(20)
        running.pop()

    assert app.worker
    monkeypatch.setattr(app.worker.predictor, "predict", slow)
    app.settings = app.settings.model_copy(update={"timeout_seconds": 0.1, "max_concurrency": 64})
    with TestClient(app.routes()) as client:
        statuses = {client.post("/predict?face=find", files={"image": face}).status_code for _ in range(12)}
    gate.set()

    assert statuses == {504}
    assert max(most) == MAX_LARGE_AT_ONCE
