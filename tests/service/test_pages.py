"""The page for one image, in a real browser: it never promises what does not hold, and every message has a remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emotion_service.app import EmotionApp
from tests.browser import launch, needs_chromium
from tests.service.conftest import RunningServer, make_app

CAMERA = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")

pytestmark = needs_chromium


@pytest.fixture
def app(bundle_dir: Path, tmp_path: Path) -> EmotionApp:
    return make_app(tmp_path, bundle_dir, store_images=False, token="secret")


@pytest.fixture
def page(app: EmotionApp) -> Iterator[Any]:
    """The page of a service with a token; its problems fail the test."""
    from playwright.sync_api import sync_playwright

    problems: list[str] = []
    with RunningServer(app) as server, sync_playwright() as playwright:
        browser = launch(playwright, *CAMERA)
        opened = browser.new_page(viewport={"width": 375, "height": 667})
        opened.on("pageerror", lambda error: problems.append(str(error)))
        opened.goto(server.address)
        yield opened
        browser.close()
    app.close()
    assert problems == []


def send(page: Any, content: bytes, name: str = "face.jpg") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "image/jpeg", "buffer": content})


def enter_token(page: Any, token: str) -> None:
    page.evaluate("() => { find('token').hidden = false; }")
    page.get_by_label("Service token").fill(token)
    page.get_by_role("button", name="Use token").click()


def test_a_token_is_asked_for_and_the_image_sent_again(page: Any, face: bytes) -> None:
    from playwright.sync_api import expect

    send(page, face)
    expect(page.locator("#problem")).to_have_text("This service needs a token. Enter it below.")
    for wrong in ("€", "other"):
        page.get_by_label("Service token").fill(wrong)
        page.get_by_role("button", name="Use token").click()
        expect(page.locator("#problem")).to_have_text("This token is not accepted.")
    enter_token(page, " secret ")
    expect(page.get_by_role("button", name="It is a face").or_(page.get_by_text("This face looks"))).to_be_visible()
    expect(page.locator("#token")).to_be_hidden()


def test_the_page_says_whether_images_are_stored_now(page: Any, app: EmotionApp, face: bytes) -> None:
    """Before each upload, because the service may have been started with other settings since."""
    from playwright.sync_api import expect

    expect(page.locator("#storage")).to_contain_text("The image is not stored")
    app.settings = app.settings.model_copy(update={"store_images": True})
    send(page, face)
    expect(page.locator("#storage")).to_contain_text("The image is stored for 30 days")
    page.route("**/model", lambda route: route.abort())
    send(page, face)
    expect(page.locator("#storage")).to_have_text("The image may be stored for labelling.")


@pytest.mark.parametrize(
    ("status", "message"), [(413, "The image is too large"), (502, "The service responds with status 502")]
)
def test_a_proxy_that_refuses_is_explained(page: Any, face: bytes, status: int, message: str) -> None:
    from playwright.sync_api import expect

    page.route("**/predict*", lambda route: route.fulfill(status=status, body="<html>nginx</html>"))
    send(page, face)
    expect(page.locator("#problem")).to_contain_text(message)


def test_what_cannot_be_sent_is_explained(page: Any) -> None:
    """An empty file, several files, and an image that the browser cannot show."""
    from playwright.sync_api import expect

    enter_token(page, "secret")
    send(page, b"", "scan.tiff")
    expect(page.locator("#problem")).to_have_text("The file is empty. Choose another one.")
    expect(page.locator("#hint")).to_contain_text("This browser cannot show scan.tiff")
    expect(page.locator("#hint .soft")).to_be_hidden()
    page.evaluate(
        """() => {
          const data = new DataTransfer();
          for (const name of ["1.jpg", "2.jpg"]) data.items.add(new File(["x"], name));
          document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }"""
    )
    expect(page.locator("#problem")).to_have_text("Drop one image at a time.")


def test_a_label_is_never_for_an_image_that_the_camera_hides(page: Any, face: bytes) -> None:
    from playwright.sync_api import expect

    enter_token(page, "secret")
    send(page, face)
    anyway = page.get_by_role("button", name="It is a face")
    expect(anyway.or_(page.get_by_text("This face looks"))).to_be_visible()
    if anyway.is_visible():
        anyway.click()
    expect(page.locator("#correction")).to_be_visible()

    page.get_by_role("button", name="Use the camera").click()

    expect(page.get_by_role("button", name="Take a photo")).to_be_visible()
    expect(page.locator("#correction")).to_be_hidden()
    expect(page.locator("#prediction")).to_have_text("Take a photo")
    page.get_by_role("button", name="Close the camera").click()
    expect(page.locator("#prediction")).to_have_text("No image yet")
    send(page, b"no image", "scan.tiff")
    expect(page.locator("#hint")).to_contain_text("This browser cannot show scan.tiff")
    page.get_by_role("button", name="Use the camera").click()
    page.get_by_role("button", name="Close the camera").click()
    expect(page.locator("#hint")).to_contain_text("Choose an image")
    expect(page.locator("#hint .soft")).to_be_visible()


@pytest.mark.parametrize("path", ["", "label"])
def test_large_type_and_long_words_fit_a_phone(page: Any, path: str) -> None:
    """A browser's font may be twice as large (WCAG 1.4.4), and a class may have sixty letters."""
    page.route(
        re.compile(r"/(label)?$"),
        lambda route: route.fulfill(
            body=route.fetch().text().replace('"happy"]', f'"{"x" * 60}"]'), content_type="text/html"
        ),
    )
    page.route("**/model", lambda route: route.abort())
    page.goto(f"{page.url}{path}")
    page.add_style_tag(content="html { font-size: 200% } .card { display: block !important }")

    assert "x" * 60 in page.inner_text("body")
    assert page.evaluate("document.documentElement.scrollWidth") == 375
