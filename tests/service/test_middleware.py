from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from emotion_service.app import EmotionApp
from emotion_service.middleware import RateLimit
from emotion_service.settings import Settings


def client_of(bundle_dir: Path, tmp_path: Path, **settings: Any) -> TestClient:
    app = EmotionApp(Settings(tmp_path, 1, max_concurrency=4, timeout_seconds=20, **settings))
    app.load(bundle_dir)
    return TestClient(app.routes(), raise_server_exceptions=False)


def test_without_the_token_nobody_is_answered(bundle_dir: Path, tmp_path: Path, face: bytes) -> None:
    """The three guarded routes answer 401 in our shape; page, facts and health stay open."""
    client = client_of(bundle_dir, tmp_path, token="s3cret")

    for path in ("/predict", "/predict_batch", "/feedback"):
        response = client.post(path)
        assert (response.status_code, response.json()["error"]["code"]) == (401, "unauthorized")
        assert response.headers["WWW-Authenticate"] == "Bearer"
    wrong = client.post("/predict", files={"image": face}, headers={"Authorization": "Bearer nope"})
    right = client.post("/predict", files={"image": face}, headers={"Authorization": "Bearer s3cret"})

    assert (wrong.status_code, right.status_code) == (401, 200)
    assert client.get("/").status_code == client.get("/model").status_code == 200


def test_nothing_behind_a_guard_is_reached_by_a_spelling(bundle_dir: Path, tmp_path: Path) -> None:
    """A route's pattern also ends before a last newline; without the token there must be no way round."""
    client = client_of(bundle_dir, tmp_path, token="s3cret", keep_images=True)

    for method, path in (
        ("POST", "/predict"),
        ("POST", "/predict_batch"),
        ("POST", "/feedback"),
        ("GET", "/label_requests"),
        ("GET", "/label_image"),
    ):
        assert client.request(method, path).status_code == 401
        for spelling in ("%0A", "%0D", "%0A%0A", "/", "%2F", "%20", "%00", ";x"):
            response = client.request(method, path + spelling)
            assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found"), spelling


def test_a_client_above_its_rate_waits(bundle_dir: Path, tmp_path: Path, face: bytes) -> None:
    """After a burst the answer is 429 with the seconds to wait; other routes do not count."""
    client = client_of(bundle_dir, tmp_path, rate_per_minute=30)

    statuses = [client.post("/predict", files={"image": face}).status_code for _ in range(5)]
    rejected = client.post("/predict", files={"image": face})

    assert statuses == [200, 200, 200, 429, 429]
    assert rejected.json()["error"]["code"] == "rate_limited"
    assert 1 <= int(rejected.headers["Retry-After"]) <= 3
    assert all(client.get("/model").status_code == 200 for _ in range(20))


def test_tokens_cannot_be_tried_without_end(bundle_dir: Path, tmp_path: Path) -> None:
    """A wrong one counts like any request. The scheme's name is the same in small letters."""
    client = client_of(bundle_dir, tmp_path, token="s3cret", rate_per_minute=30)

    statuses = [client.post("/predict", headers={"Authorization": f"bearer {i}"}).status_code for i in range(4)]

    assert statuses == [401, 401, 401, 429]
    other = client_of(bundle_dir, tmp_path, token="s3cret")
    assert other.post("/predict", headers={"Authorization": "bearer s3cret"}).status_code != 401
    assert other.post("/predict", headers={"Authorization": "Basic s3cret"}).status_code == 401


def test_a_bucket_refills_and_forgets_clients() -> None:
    """Sixty a minute are one a second; the number of remembered clients is bounded."""
    now = 0.0
    limit = RateLimit(60, lambda: now)

    assert [limit.seconds_to_wait("a") for _ in range(7)] == [0] * 6 + [1]
    assert limit.seconds_to_wait("b") == 0
    now = 1.0
    assert limit.seconds_to_wait("a") == 0
    for number in range(10_050):
        limit.seconds_to_wait(f"client {number}")
    assert len(limit._buckets) <= 10_000


def test_every_answer_carries_a_request_id(bundle_dir: Path, tmp_path: Path, face: bytes) -> None:
    """A sensible id of the client's is kept, any other is replaced; rejections have one too."""
    client = client_of(bundle_dir, tmp_path)

    kept = client.post("/predict", files={"image": face}, headers={"X-Request-Id": "abc-1"})
    replaced = client.post("/predict", content=b"x", headers={"X-Request-Id": "a b\tc"})
    unknown = client.get("/nope")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("emotion_service.inference.image_features", lambda _: 1 / 0)
        broken = client.post("/predict", files={"image": face})

    assert kept.headers["X-Request-Id"] == "abc-1"
    assert len(replaced.headers["X-Request-Id"]) == 16
    assert unknown.headers["X-Request-Id"]
    assert (broken.status_code, len(broken.headers["X-Request-Id"])) == (500, 16)
    assert 'emotion_requests_total{method="POST",route="/predict",status="500"} 1.0' in client.get("/metrics").text


def test_requests_leave_a_line_of_json_when_asked(
    bundle_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Route, status, time and id; never what the client wrote into the path."""
    client = client_of(bundle_dir, tmp_path, has_access_log=True)
    with caplog.at_level(logging.INFO, "emotion_service.access"):
        client.get("/model", headers={"X-Request-Id": "abc"})
        client.get("/secret-path")

    lines = [json.loads(record.message) for record in caplog.records if record.name == "emotion_service.access"]
    assert lines[0] | {"time": "", "ms": 0} == {
        "time": "",
        "request_id": "abc",
        "method": "GET",
        "route": "/model",
        "status": 200,
        "ms": 0,
    }
    assert lines[1]["route"] == "other"


def test_metrics_count_and_their_labels_are_bounded(bundle_dir: Path, tmp_path: Path, face: bytes) -> None:
    """Answers, rejections, records and version are counted; a scanner's paths and methods make no new label."""
    client = client_of(bundle_dir, tmp_path)
    emotion = client.post("/predict", files={"image": face}).json()["emotion"]
    client.post("/predict", content=b"bad", headers={"Content-Type": "image/png"})
    client.post("/feedback", json={"prediction_id": "00", "emotion": "sad"})
    for number in range(50):
        client.get(f"/scan/{number}")
        client.request(f"ODD{number}", "/predict")

    text = client.get("/metrics").text

    assert f'emotion_predictions_total{{emotion="{emotion}",model_version="{bundle_dir.name}"}} 1.0' in text
    assert 'emotion_rejections_total{code="unsupported_format"} 1.0' in text
    assert 'emotion_rejections_total{code="unknown_prediction"} 1.0' in text
    assert 'emotion_requests_total{method="POST",route="/predict",status="200"} 1.0' in text
    assert f'emotion_model_workers{{model_version="{bundle_dir.name}"}} 1.0' in text
    assert 'emotion_log_records_total{result="lost"} 0.0' in text
    assert "scan" not in text
    assert "ODD" not in text


def test_other_origins_are_closed_by_default(bundle_dir: Path, tmp_path: Path) -> None:
    """Only the origins that are named may ask from a browser."""
    origin = {"Origin": "https://example.org"}
    closed = client_of(bundle_dir, tmp_path).get("/model", headers=origin)
    opened = client_of(bundle_dir, tmp_path, cors_origins=("https://example.org",)).get("/model", headers=origin)

    assert "access-control-allow-origin" not in closed.headers
    assert opened.headers["access-control-allow-origin"] == "https://example.org"
