"""People with the token label what the drift report asked for; nobody else sees an image."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from emotion_assets.core.layout import LABEL_REQUEST_NAME
from emotion_service.app import EmotionApp
from emotion_service.settings import Settings
from tests.service.conftest import logged
from tests.service.test_abuse import InferenceOutput

HEADERS = {"Authorization": "Bearer secret"}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def app(bundle_dir: Path, tmp_path: Path) -> EmotionApp:
    settings = Settings(tmp_path, 1, max_concurrency=4, timeout_seconds=20, keep_images=True, token="secret")
    emotion_app = EmotionApp(settings)
    emotion_app.load(bundle_dir)
    return emotion_app


def answered(app: EmotionApp, faces: list[tuple[str, bytes]], num: int) -> list[str]:
    """Ask for some faces, request labels for all of them, and return their ids once they are kept."""
    with TestClient(app.routes(), headers=HEADERS) as client:
        ids = [client.post("/predict", files={"image": face}).json()["prediction_id"] for _, face in faces[:num]]
    logged(app)
    rows = [{"prediction_id": name, "emotion": "sad", "confidence": 0.5, "reason": "random"} for name in ids]
    folder = app.settings.data_dir / "feedback"
    folder.mkdir(exist_ok=True)
    (folder / LABEL_REQUEST_NAME).write_text(json.dumps({"predictions": rows}))
    return ids


def test_what_has_a_label_leaves_the_queue(app: EmotionApp, faces: list[tuple[str, bytes]]) -> None:
    """Three are asked for, one is labelled, two are left; their images are those that were sent."""
    ids = answered(app, faces, 3)
    with TestClient(app.routes(), headers=HEADERS) as client:
        client.post("/feedback", json={"prediction_id": ids[0], "emotion": "happy"})
        waiting = client.get("/label_requests").json()
        image = client.get(f"/label_image?prediction_id={ids[1]}")

    assert [row["prediction_id"] for row in waiting] == ids[1:]
    assert all(row["has_image"] for row in waiting)
    assert image.content == faces[1][1]
    assert image.headers["content-type"] == "image/jpeg"
    assert image.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/label_requests", "/label_image?prediction_id=x"])
def test_nobody_without_the_token_sees_anything(app: EmotionApp, path: str) -> None:
    """401 without it; 403 where the service has none, because then everybody would see the images."""
    open_app = EmotionApp(dataclasses.replace(app.settings, token=""))

    assert TestClient(app.routes()).get(path).status_code == 401
    response = TestClient(open_app.routes()).get(path)
    assert response.status_code == 403
    assert "EMOTION_TOKEN" in response.json()["error"]["message"]
    app.close()


@pytest.mark.parametrize("name", ["", "../../feedback/.key", "0" * 40, "*", "%2e%2e%2f"])
def test_no_other_file_is_shown(app: EmotionApp, name: str) -> None:
    """Only names of predictions, and only where an image is kept."""
    with TestClient(app.routes(), headers=HEADERS) as client:
        assert client.get(f"/label_image?prediction_id={name}").status_code == 404
    app.close()


def test_without_a_request_the_queue_is_empty(app: EmotionApp) -> None:
    """Also where the file is torn or of another kind."""
    folder = app.settings.data_dir / "feedback"
    folder.mkdir(exist_ok=True)
    with TestClient(app.routes(), headers=HEADERS) as client:
        for text in (None, "{", "[]", "{}", '{"predictions": [1]}'):
            if text is not None:
                (folder / LABEL_REQUEST_NAME).write_text(text)
            assert client.get("/label_requests").json() == []
    app.close()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium, which .ci/run installs")
def test_a_label_is_for_the_face_on_the_screen(app: EmotionApp, faces: list[tuple[str, bytes]]) -> None:
    """Keys between two faces, held keys and shortcuts label nothing; a label that was not kept can be given again."""
    from playwright.sync_api import Route, expect, sync_playwright

    ids = answered(app, faces, 3)
    given: list[dict[str, str]] = []
    answers = [429, 200, 200]

    def late(route: Route) -> None:
        time.sleep(0.5)
        route.continue_()

    def feedback(route: Route) -> None:
        given.append(route.request.post_data_json)
        status = answers.pop(0)
        body = {"error": {"code": "rate_limited", "message": "Too many."}} if status != 200 else {}
        route.fulfill(status=status, json=body)

    with InferenceOutput(app) as served, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.route("**/label_image*", late)
        page.route("**/feedback", feedback)
        page.goto(f"{served.address}/label")
        page.get_by_label("Token of the service").fill("secret")
        page.get_by_role("button", name="Begin").dblclick()
        page.keyboard.press("3")
        expect(page.get_by_role("img")).to_be_visible()
        page.keyboard.press("Control+3")
        assert given == []
        page.keyboard.press("3")
        expect(page.get_by_role("status")).to_contain_text("Not kept: Too many.")
        page.keyboard.press("3")
        page.get_by_role("button", name="Go on").dblclick()
        expect(page.get_by_role("status")).to_contain_text("3 to go")
        page.keyboard.down("3")
        page.keyboard.down("3")
        expect(page.get_by_role("status")).to_contain_text("2 to go")
        page.keyboard.down("3")
        page.keyboard.up("3")
        page.get_by_role("button", name="skip").click()
        expect(page.get_by_role("status")).to_contain_text("1 to go")
        page.get_by_role("button", name="fear").click()
        expect(page.get_by_role("status")).to_contain_text("Nothing is waiting")
        expect(page.get_by_role("img")).to_be_hidden()
        browser.close()
    app.close()

    assert given == [
        {"prediction_id": ids[0], "emotion": "happy"},
        {"prediction_id": ids[0], "emotion": "happy"},
        {"prediction_id": ids[2], "emotion": "fear"},
    ]
