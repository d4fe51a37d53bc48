"""Clients with the token label what the drift report requested; nobody else sees an image."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from emotion_assets.core.layout import LABEL_REQUEST_NAME
from emotion_service.app import EmotionApp
from tests.browser import launch, needs_chromium
from tests.service.conftest import RunningServer, logged, make_app

HEADERS = {"Authorization": "Bearer secret"}


@pytest.fixture
def app(bundle_dir: Path, tmp_path: Path) -> EmotionApp:
    return make_app(tmp_path, bundle_dir, store_images=True, token="secret")


def request_labels(app: EmotionApp, faces: list[tuple[str, bytes]], num: int) -> list[str]:
    """Predict some faces, request labels for all of them, and return their ids once the images are stored."""
    with TestClient(app.routes(), headers=HEADERS) as client:
        ids = [client.post("/predict", files={"image": face}).json()["prediction_id"] for _, face in faces[:num]]
    logged(app)
    rows = [{"prediction_id": name, "emotion": "sad", "confidence": 0.5, "reason": "random"} for name in ids]
    folder = app.settings.data_dir / "feedback"
    folder.mkdir(exist_ok=True)
    (folder / LABEL_REQUEST_NAME).write_text(json.dumps({"predictions": rows}))
    return ids


def test_a_labelled_prediction_leaves_the_queue(app: EmotionApp, faces: list[tuple[str, bytes]]) -> None:
    """Of three, one is labelled and two remain; their images are the uploaded ones."""
    ids = request_labels(app, faces, 3)
    with TestClient(app.routes(), headers=HEADERS) as client:
        client.post("/feedback", json={"prediction_id": ids[0], "emotion": "happy"})
        pending = client.get("/label_requests").json()
        image = client.get(f"/label_image?prediction_id={ids[1]}")

    assert [row["prediction_id"] for row in pending] == ids[1:]
    assert all(row["has_image"] for row in pending)
    assert image.content == faces[1][1]
    assert image.headers["content-type"] == "image/jpeg"
    assert image.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/label_requests", "/label_image?prediction_id=x"])
def test_without_the_token_nothing_is_shown(app: EmotionApp, path: str) -> None:
    """401 without it; 403 if the service has none, because everybody would see the images."""
    open_app = make_app(app.settings.data_dir)

    assert TestClient(app.routes()).get(path).status_code == 401
    response = TestClient(open_app.routes()).get(path)
    assert response.status_code == 403
    assert "EMOTION_TOKEN" in response.json()["error"]["message"]
    app.close()


@pytest.mark.parametrize("name", ["", "../../feedback/.key", "0" * 40, "*", "%2e%2e%2f"])
def test_no_other_file_is_shown(app: EmotionApp, name: str) -> None:
    """Only ids of predictions, and only stored images."""
    with TestClient(app.routes(), headers=HEADERS) as client:
        assert client.get(f"/label_image?prediction_id={name}").status_code == 404
    app.close()


def test_without_a_request_the_queue_is_empty(app: EmotionApp) -> None:
    """So it is if the file is truncated or of another kind."""
    folder = app.settings.data_dir / "feedback"
    folder.mkdir(exist_ok=True)
    with TestClient(app.routes(), headers=HEADERS) as client:
        for text in (None, "{", "[]", "{}", '{"predictions": [1]}'):
            if text is not None:
                (folder / LABEL_REQUEST_NAME).write_text(text)
            assert client.get("/label_requests").json() == []
    app.close()


FRENCH_4 = """document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "'", code: "Digit4", bubbles: true}))"""


@needs_chromium
def test_a_label_is_for_the_face_on_the_screen(  # noqa: PLR0915 -- one visit, step by step
    app: EmotionApp, faces: list[tuple[str, bytes]]
) -> None:
    """Keys between two faces, held and repeated keys and shortcuts label nothing; a label can be taken back."""
    from playwright.sync_api import Route, expect, sync_playwright

    ids = request_labels(app, faces, 4)
    given: list[dict[str, str]] = []
    statuses = [429, 200, 200, 200]

    def late(route: Route) -> None:
        time.sleep(0.5)
        route.continue_()

    def feedback(route: Route) -> None:
        given.append(route.request.post_data_json)
        status = statuses.pop(0)
        body = {"error": {"code": "rate_limited", "message": "Too many."}} if status != 200 else {}
        route.fulfill(status=status, json=body)

    with RunningServer(app) as server, sync_playwright() as playwright:
        browser = launch(playwright)
        page = browser.new_page()
        page.route("**/label_image*", late)
        page.route("**/feedback", feedback)
        page.goto(f"{server.address}/label")
        state = page.locator("#state")

        def look(text: str) -> None:
            expect(state).to_contain_text(text)
            page.wait_for_timeout(450)

        page.get_by_label("Service token").fill("€")
        page.get_by_role("button", name="Start").click()
        look("This token is not accepted.")
        page.get_by_label("Service token").fill(" secret ")
        page.get_by_role("button", name="Start").dblclick()
        page.keyboard.press("3")
        look("4 to go")
        page.keyboard.press("Control+3")
        page.get_by_label("Number keys").uncheck()
        page.keyboard.press("3")
        page.get_by_label("Number keys").check()
        look("4 to go")
        page.evaluate(FRENCH_4)
        look("3 to go")
        page.keyboard.press("Backspace")
        look("4 to go")
        page.keyboard.press("3")
        look("3 to go")
        assert given == []
        page.keyboard.press("4")
        look("Not saved: Too many.")
        page.keyboard.press("3")
        expect(page.get_by_role("img")).to_be_hidden()
        page.get_by_role("button", name="Continue").dblclick()
        look("3 to go")
        page.keyboard.down("3")
        page.keyboard.down("3")
        expect(state).to_contain_text("2 to go")
        page.keyboard.down("3")
        page.keyboard.up("3")
        page.keyboard.press("4")
        look("2 to go")
        page.get_by_role("button", name="skip").click()
        look("1 to go")
        expect(page.get_by_role("button", name="skip")).to_be_focused()
        page.get_by_role("button", name="afraid").click()
        look("No more faces; 1 skipped.")
        expect(page.get_by_role("img")).to_be_hidden()
        page.get_by_role("button", name="Look again").click()
        look("4 to go")
        browser.close()
    app.close()

    assert given == [
        {"prediction_id": ids[0], "emotion": "happy"},
        {"prediction_id": ids[1], "emotion": "sad"},
        {"prediction_id": ids[0], "emotion": "happy"},
        {"prediction_id": ids[3], "emotion": "fear"},
    ]


@needs_chromium
def test_the_keyboard_alone_suffices(app: EmotionApp, faces: list[tuple[str, bytes]]) -> None:
    """A key that is held down labels one face, Undo leaves the focus at the classes, and a refusal can be repeated."""
    from playwright.sync_api import Route, expect, sync_playwright

    request_labels(app, faces, 4)
    statuses = [429, 200]

    def requests(route: Route) -> None:
        if (status := statuses.pop(0)) == 200:
            return route.continue_()
        return route.fulfill(status=status, json={"error": {"code": "rate_limited", "message": "Too many."}})

    with RunningServer(app) as server, sync_playwright() as playwright:
        browser = launch(playwright)
        page = browser.new_page()
        page.route("**/label_requests", requests)
        page.goto(f"{server.address}/label")
        state, skip = page.locator("#state"), page.get_by_role("button", name="skip")
        page.get_by_label("Service token").fill("secret")
        page.keyboard.press("Enter")
        expect(state).to_contain_text("Too many.")
        page.get_by_role("button", name="Try again").press("Enter")
        expect(state).to_contain_text("4 to go")
        page.wait_for_timeout(450)
        page.keyboard.press("3")
        expect(state).to_contain_text("3 to go")
        page.wait_for_timeout(450)
        page.get_by_role("button", name="Undo").press("Enter")
        expect(state).to_contain_text("4 to go")
        expect(page.get_by_role("button", name="1 angry")).to_be_focused()
        page.wait_for_timeout(450)
        skip.focus()
        for _ in range(6):
            page.keyboard.down("Enter")
            page.wait_for_timeout(450)
        page.keyboard.up("Enter")
        expect(state).to_contain_text("3 to go")
        expect(skip).to_be_focused()
        browser.close()
    app.close()
