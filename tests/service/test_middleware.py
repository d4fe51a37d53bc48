from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from emotion_assets.core.classifier import Classifier
from emotion_service.middleware import RateLimit
from tests.service.conftest import make_app


def make_client(bundle_dir: Path, tmp_path: Path, **settings: Any) -> TestClient:
    return TestClient(make_app(tmp_path, bundle_dir, **settings).routes(), raise_server_exceptions=False)


def test_without_the_token_requests_are_rejected(bundle_dir: Path, tmp_path: Path, face: bytes) -> None:
    """The protected routes have status 401 and the error body; page and model stay open."""
    client = make_client(bundle_dir, tmp_path, token="s3cret")

    for path in ("/predict", "/predict_batch", "/feedback"):
        response = client.post(path)
        assert (response.status_code, response.json()["error"]["code"]) == (401, "unauthorized")
        assert response.headers["WWW-Authenticate"] == "Bearer"
    wrong = client.post("/predict", files={"image": face}, headers={"Authorization": "Bearer nope"})
    right = client.post("/predict", files={"image": face}, headers={"Authorization": "Bearer s3cret"})

    assert (wrong.status_code, right.status_code) == (401, 200)
    assert client.get("/").status_code == client.get("/model").status_code == 200


def test_no_spelling_of_a_path_bypasses_the_token(bundle_dir: Path, tmp_path: Path) -> None:
    """A route's pattern also matches a path with a final newline."""
    client = make_client(bundle_dir, tmp_path, token="s3cret", store_images=True)

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


def test_a_client_above_its_rate_must_wait(bundle_dir: Path, tmp_path: Path, face: bytes) -> None:
    """After a burst the status is 429 with the seconds to wait; other routes do not count."""
    client = make_client(bundle_dir, tmp_path, rate_per_minute=30)

    statuses = [client.post("/predict", files={"image": face}).status_code for _ in range(5)]
    rejected = client.post("/predict", files={"image": face})

    assert statuses == [200, 200, 200, 429, 429]
    assert rejected.json()["error"]["code"] == "rate_limited"
    assert 1 <= int(rejected.headers["Retry-After"]) <= 3
    assert all(client.get("/model").status_code == 200 for _ in range(20))


def test_guessing_tokens_is_rate_limited(bundle_dir: Path, tmp_path: Path) -> None:
    """A wrong token counts like any request. The name of the scheme is case-insensitive."""
    client = make_client(bundle_dir, tmp_path, token="s3cret", rate_per_minute=30)

    statuses = [client.post("/predict", headers={"Authorization": f"bearer {i}"}).status_code for i in range(4)]

    assert statuses == [401, 401, 401, 429]
    other = make_client(bundle_dir, tmp_path, token="s3cret")
    assert other.post("/predict", headers={"Authorization": "bearer s3cret"}).status_code != 401
    assert other.post("/predict", headers={"Authorization": "Basic s3cret"}).status_code == 401


def test_a_bucket_refills() -> None:
    """Sixty per minute are one per second."""
    now = 0.0
    limit = RateLimit(60, lambda: now)

    assert [limit.seconds_to_wait("a") for _ in range(7)] == [0] * 6 + [1]
    assert limit.seconds_to_wait("b") == 0
    now = 1.0
    assert limit.seconds_to_wait("a") == 0


def test_every_response_has_a_request_id(bundle_dir: Path, tmp_path: Path, face: bytes) -> None:
    """A valid id of the client is returned, any other is replaced; errors have one, too."""
    client = make_client(bundle_dir, tmp_path)

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


def test_the_access_log_has_a_line_of_json_per_request(
    bundle_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It has route, status, time and id, never an unknown path."""
    client = make_client(bundle_dir, tmp_path, access_log=True)
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
    """Predictions, errors, records and versions are counted; a scanner's paths and methods create no label."""
    client = make_client(bundle_dir, tmp_path)
    emotion = client.post("/predict", files={"image": face}).json()["emotion"]
    client.post("/predict", content=b"bad", headers={"Content-Type": "image/png"})
    client.post("/feedback", json={"prediction_id": "00", "emotion": "sad"})
    for number in range(50):
        client.get(f"/scan/{number}")
        client.request(f"ODD{number}", "/predict")

    text = client.get("/metrics").text

    assert f'emotion_predictions_total{{emotion="{emotion}",model_version="{bundle_dir.name}"}} 1.0' in text
    assert 'emotion_errors_total{code="unsupported_format"} 1.0' in text
    assert 'emotion_errors_total{code="unknown_prediction"} 1.0' in text
    assert 'emotion_requests_total{method="POST",route="/predict",status="200"} 1.0' in text
    assert f'emotion_model_workers{{model_version="{bundle_dir.name}"}} 1.0' in text
    assert 'emotion_log_records_total{result="lost"} 0.0' in text
    assert "scan" not in text
    assert "ODD" not in text


def test_other_origins_are_rejected_by_default(bundle_dir: Path, tmp_path: Path) -> None:
    """Only configured origins may send requests from a browser."""
    origin = {"Origin": "https://example.org"}
    closed = make_client(bundle_dir, tmp_path).get("/model", headers=origin)
    client = make_client(bundle_dir, tmp_path, cors_origins=("https://example.org",))
    opened = client.get("/model", headers=origin)
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-request-id"}

    assert "access-control-allow-origin" not in closed.headers
    assert opened.headers["access-control-allow-origin"] == "https://example.org"
    assert opened.headers["access-control-expose-headers"] == "Retry-After, X-Request-Id"
    assert client.options("/predict", headers=origin | asked).status_code == 200


def test_an_idle_client_has_no_more_than_a_burst() -> None:
    """However long it was idle."""
    now = 0.0
    limit = RateLimit(60, lambda: now)
    limit.seconds_to_wait("a")
    now = 3600.0

    assert sum(limit.seconds_to_wait("a") == 0 for _ in range(20)) == 6


def test_clients_that_were_idle_longest_are_forgotten() -> None:
    """A client above its rate stays so, whoever else comes."""
    now = 0.0
    limit = RateLimit(6, lambda: now)
    limit.seconds_to_wait("idle")
    for number in range(9_999):
        limit.seconds_to_wait(f"client {number}")
    limit.seconds_to_wait("busy")

    assert limit.seconds_to_wait("busy") > 0
    assert limit.seconds_to_wait("idle") == 0


def test_each_worker_allows_the_whole_rate(bundle_dir: Path, tmp_path: Path, face: bytes) -> None:
    """All requests of a connection that is kept open reach one worker."""
    client = make_client(bundle_dir, tmp_path, rate_per_minute=60, workers=3)

    statuses = [client.post("/predict", files={"image": face}).status_code for _ in range(8)]

    assert statuses == [200] * 6 + [429] * 2


@pytest.mark.parametrize("given", ["Bearer ", "Bearer", "Bearer s3cre", "Bearer s3cret ", "Bearer s3cretx"])
def test_a_part_of_the_token_is_not_enough(bundle_dir: Path, tmp_path: Path, given: str) -> None:
    client = make_client(bundle_dir, tmp_path, token="s3cret")

    assert client.post("/predict", headers={"Authorization": given}).status_code == 401


JPEG = {"Content-Type": "image/jpeg"}


def test_requests_in_progress_end(bundle_dir: Path, tmp_path: Path, face: bytes) -> None:
    """Answered, rejected or failed, only the request for the metrics itself is left."""
    client = make_client(bundle_dir, tmp_path)
    client.post("/predict", files={"image": face})
    client.post("/predict", content=b"x", headers=JPEG)
    client.get("/nope")

    (line,) = (
        line for line in client.get("/metrics").text.splitlines() if line.startswith("emotion_requests_in_progress")
    )
    assert float(line.split()[-1]) == 1


@pytest.fixture(scope="module")
def model(bundle_dir: Path) -> Classifier:
    return Classifier(bundle_dir)


@pytest.mark.parametrize("headers", [[("X-N", "y")] * 250, [("X-Long", "x" * 40_000)]], ids=["many", "long"])
def test_too_many_headers_are_rejected(bundle_dir: Path, tmp_path: Path, headers: list[tuple[str, str]]) -> None:
    response = make_client(bundle_dir, tmp_path).get("/model", headers=headers)

    assert (response.status_code, response.json()["error"]["code"]) == (431, "headers_too_large")
