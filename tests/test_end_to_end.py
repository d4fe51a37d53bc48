"""The whole product as its users run it: Dagster, BentoML, HTTP and a browser, each in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import dagster as dg
import httpx
import numpy as np
import pytest

from emotion_assets.core.bundle import INT8_MODEL_NAME
from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.layout import DataPaths
from emotion_assets.demo.faces import draw_dataset, draw_face
from emotion_assets.steps.registry.registry import Decision, Registry
from tests.browser import launch, needs_chromium
from tests.bundles import change_manifest
from tests.served import is_ready, serving
from tests.service.conftest import records_below

CHECKOUT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent

RUN_CONFIG = """
ops:
  trained_cnn:
    config: {preset: quick, epochs: 20, width: 12, batch_size: 32, precision: 32-true}
"""


class Site:
    """A fresh machine's folders and environment, and the commands that people type."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.data = home / "data"
        (home / "dagster").mkdir()
        shutil.copyfile(CHECKOUT / "dagster_home" / "dagster.yaml", home / "dagster" / "dagster.yaml")
        (home / "run.yaml").write_text(RUN_CONFIG)
        self.environment = os.environ | {
            "EMOTION_DATA_DIR": str(self.data),
            "BENTOML_HOME": str(home / "bentoml"),
            "DAGSTER_HOME": str(home / "dagster"),
            "EMOTION_WORKERS": "2",
            "PYTHONWARNINGS": "ignore",
        }
        self.environment.pop("PYTEST_CURRENT_TEST", None)

    def retrain(self) -> subprocess.Popen[str]:
        command = [str(BIN / "dagster"), "job", "execute", "-m", "emotion_assets.definitions", "-j", "retrain"]
        return subprocess.Popen(
            [*command, "-c", str(self.home / "run.yaml")],
            cwd=CHECKOUT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def states(self) -> dict[str, bool]:
        """Which assets have a materialization, in the instance that the UI would show."""
        with dg.DagsterInstance.from_config(str(self.home / "dagster")) as instance:
            keys = (
                "raw_images",
                "greyscale_splits",
                "trained_cnn",
                "evaluation_report",
                "drift_report",
                "emotion_bento",
            )
            return {key: instance.get_latest_materialization_event(dg.AssetKey(key)) is not None for key in keys}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site whose first retrain was killed twice and then succeeded."""
    site = Site(tmp_path_factory.mktemp("site"))
    draw_dataset(DataPaths(site.data), num_per_class=80, seed=11)
    for moment in ("raw_images - Comparing new images", "Epoch 3 of 20"):
        kill_at(site.retrain(), moment)
    run = site.retrain()
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 0, output[-5000:]
    (site.home / "retrain.log").write_text(output)
    return site


def kill_at(run: subprocess.Popen[str], text: str) -> None:
    """Kill a run and all its children, without warning, as soon as its log shows `text`."""
    assert run.stdout
    seen = []
    for line in run.stdout:
        seen.append(line)
        if text in line:
            os.killpg(run.pid, signal.SIGKILL)
            break
    run.stdout.close()
    assert run.wait() == -signal.SIGKILL, "".join(seen[-30:])


class Collector(BaseHTTPRequestHandler):
    """Receives traces as an OpenTelemetry collector does."""

    received: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        self.received.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture(scope="module")
def collector() -> Iterator[str]:
    """Where the service sends its traces."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/traces"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def service(site: Site, collector: str) -> Iterator[str]:
    """The address of the bento, served as people serve it."""
    settings = {"EMOTION_TRACES_URL": collector, "EMOTION_ACCESS_LOG": "1"}
    with serving(site.home, site.environment | settings) as (address, _):
        yield address


def predict(address: str, content: bytes) -> httpx.Response:
    return httpx.post(f"{address}/predict", content=content, headers={"Content-Type": "image/jpeg"}, timeout=20)


def test_a_killed_run_is_repaired_by_the_next(site: Site) -> None:
    """After two kills, one run materializes all six assets without repair, and training resumes."""
    log = (site.home / "retrain.log").read_text()

    assert all(site.states().values())
    assert "Resuming" in log
    assert not list(site.data.rglob("*.tmp"))
    assert Registry(site.data / "models").champion() is not None


def test_the_service_predicts_with_the_accepted_model(site: Site, service: str) -> None:
    """New faces are predicted by the champion, mostly correctly."""
    champion = Registry(site.data / "models").champion()
    rng = np.random.default_rng(99)
    num_correct = 0
    for number in range(25):
        emotion = EMOTIONS[number % 5]
        prediction = predict(service, draw_face(emotion, rng)).json()
        assert prediction["model_version"] == champion
        num_correct += prediction["emotion"] == emotion

    assert num_correct >= 12


def test_each_request_is_a_line_of_json(site: Site, service: str) -> None:
    """In the log that `bentoml serve` writes, whatever levels it sets."""
    request_id = predict(service, draw_face("happy", np.random.default_rng(0))).headers["X-Request-Id"]
    for _ in range(100):  # the line follows the response
        log = (site.home / "service.log").read_text().splitlines()
        if lines := [line for line in log if request_id in line and line.startswith("{")]:
            break
        time.sleep(0.1)

    (line,) = lines
    assert (json.loads(line)["route"], json.loads(line)["status"]) == ("/predict", 200)
    assert any("Serving model" in line for line in log)


def test_operations_routes(site: Site, service: str) -> None:
    """Health, metrics, documentation and model info."""
    assert httpx.get(f"{service}/livez").status_code == 200
    assert "emotion_requests_total" in httpx.get(f"{service}/metrics").text
    assert httpx.get(f"{service}/docs.json").json()["paths"]["/predict"]
    info = httpx.get(f"{service}/model").json()
    assert info["num_parameters"] > 0
    has_int8 = (site.data / "models" / info["model_version"] / INT8_MODEL_NAME).exists()
    assert info["runtime_precision"] == ("int8" if has_int8 else "float32")


def test_bad_uploads_are_rejected_by_the_real_server(service: str) -> None:
    """The contract's errors hold behind BentoML's own middleware too."""
    cases = [
        (400, "POST", "/predict", b""),
        (413, "POST", "/predict", bytes(11 * 2**20)),
        (415, "POST", "/predict", b"hello"),
        (422, "POST", "/predict", b"\xff\xd8\xff\xe0"),
        (405, "PUT", "/predict", b""),
        (405, "POST", "/readyz", b""),
        (404, "GET", "/nope", b""),
    ]
    for status, method, path, content in cases:
        headers = {"Content-Type": "image/png"}
        response = httpx.request(method, f"{service}{path}", content=content, headers=headers, timeout=20)
        assert response.status_code == status, (path, response.text)
        assert set(response.json()["error"]) == {"code", "message"}
    assert is_ready(service)


def test_traces_reach_the_collector(service: str) -> None:
    """Where a collector is named, spans of requests arrive there."""
    predict(service, draw_face("happy", np.random.default_rng(1)))

    wait_for(lambda: any(b"emotion_service" in body and b"/predict" in body for body in Collector.received), 30)


@needs_chromium
def test_the_page_predicts_in_a_browser(site: Site, service: str, tmp_path: Path) -> None:
    """A person chooses a face, sees bars and version, and corrects it; damage and a missing face are explained."""
    from playwright.sync_api import expect, sync_playwright

    (tmp_path / "face.jpg").write_bytes(draw_face("surprise", np.random.default_rng(5)))
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    with sync_playwright() as playwright:
        fake_camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        browser = launch(playwright, "--disable-background-networking", *fake_camera)
        page = browser.new_context(permissions=["camera"]).new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "request",
            lambda request: None if request.url.startswith((service, "blob:")) else problems.append(request.url),
        )
        page.goto(service)

        page.set_input_files("#file", tmp_path / "face.jpg")
        expect(page.locator("#prediction")).to_contain_text("This face looks", timeout=20_000)
        expect(page.locator("#info")).to_contain_text(Registry(site.data / "models").champion() or "no champion")
        shown = page.locator("#bars .number").all_inner_texts()
        page.get_by_role("button", name="sad").click()
        expect(page.locator("#thanks")).to_contain_text("Your label is saved: sad", timeout=20_000)
        page.set_input_files("#file", tmp_path / "broken.jpg")
        expect(page.locator("#problem")).to_contain_text("damaged or incomplete", timeout=20_000)
        expect(page.locator("#correction")).to_be_hidden()
        page.evaluate(
            "() => { const devices = navigator.mediaDevices, ask = devices.getUserMedia.bind(devices);"
            " window.opened = 0; devices.getUserMedia = (wish) => { window.opened += 1; return ask(wish); } }"
        )
        # Two clicks while the browser asks for permission open one camera.
        page.evaluate("async () => { await Promise.all([openCamera(), openCamera()]); }")
        assert page.evaluate("window.opened") == 1
        page.get_by_role("button", name="Take a photo").click()
        # The fake camera shows no face, and the page says so instead of guessing.
        expect(page.locator("#problem")).to_contain_text("No face was found", timeout=20_000)
        expect(page.locator("#video")).to_be_hidden()
        page.get_by_role("button", name="It is a face").click()
        expect(page.locator("#info")).to_contain_text(" ms", timeout=20_000)
        browser.close()

    assert len(list((site.data / "feedback").glob("??/*.json"))) == 1
    assert sum(float(text.removesuffix(" %")) for text in shown) == pytest.approx(100, abs=0.5)
    assert problems == []


class StrippingProxy(BaseHTTPRequestHandler):
    """Serves the service below /faces, as a reverse proxy does that strips the prefix."""

    service: ClassVar[str]

    def do_GET(self) -> None:
        self.forward(b"")

    def do_POST(self) -> None:
        self.forward(self.rfile.read(int(self.headers["Content-Length"])))

    def forward(self, body: bytes) -> None:
        path = "/" + self.path.removeprefix("/faces").removeprefix("/")
        if not self.path.startswith("/faces"):
            self.send_error(404)
            return
        kept = {name: value for name, value in self.headers.items() if name in {"Content-Type", "Authorization"}}
        response = httpx.request(self.command, self.service + path, content=body, headers=kept, timeout=20)
        self.send_response(response.status_code)
        self.send_header("Content-Type", response.headers["Content-Type"])
        self.send_header("Content-Length", str(len(response.content)))
        self.end_headers()
        self.wfile.write(response.content)

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


@needs_chromium
def test_the_pages_work_behind_a_proxy_that_strips_a_prefix(service: str, tmp_path: Path) -> None:
    """With and without the slash at the end of the prefix; nothing is asked for outside of it."""
    from playwright.sync_api import expect, sync_playwright

    (tmp_path / "face.jpg").write_bytes(draw_face("happy", np.random.default_rng(6)))
    StrippingProxy.service = service
    server = ThreadingHTTPServer(("127.0.0.1", 0), StrippingProxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        browser = launch(playwright)
        page = browser.new_page()
        failed: list[str] = []
        page.on("response", lambda response: failed.append(response.url) if response.status == 404 else None)
        for path in ("/faces", "/faces/"):
            page.goto(f"http://127.0.0.1:{server.server_port}{path}")
            page.set_input_files("#file", tmp_path / "face.jpg")
            expect(page.locator("#prediction")).to_contain_text("This face looks", timeout=20_000)
        page.goto(f"http://127.0.0.1:{server.server_port}/faces/label")
        expect(page.locator("h1")).to_contain_text("Please label")
        page.get_by_role("button", name="Start").click()
        expect(page.locator("#state")).to_contain_text("token", timeout=20_000)
        browser.close()
    server.shutdown()
    server.server_close()

    assert [url for url in failed if "favicon" not in url] == []


def test_a_killed_server_takes_its_workers_along(site: Site, tmp_path: Path) -> None:
    """Nothing keeps the port once the parent of the workers has been killed."""
    log = tmp_path / "service.log"
    with serving(tmp_path, site.environment) as (address, process):
        wait_for(lambda: log.read_text().count("Service emotion_service initialized") >= 2, log=log)
        process.kill()
    port = int(address.rpartition(":")[2])

    def is_free() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            return True
        return False

    wait_for(is_free, 20)


def test_every_prediction_is_in_the_log(site: Site, service: str) -> None:
    """One record for each prediction, whichever worker made it."""
    faces = [draw_face("happy", np.random.default_rng(number)) for number in range(40)]
    predicted = {predict(service, face).json()["prediction_id"] for face in faces}
    wait_for(lambda: predicted <= set(logged_ids(site)), 20)

    ids = logged_ids(site)
    assert len(predicted) == 40
    assert len(set(ids)) == len(ids)


def test_promotion_and_rollback_lose_no_request(site: Site, service: str) -> None:
    """While clients send requests, a model is accepted and rolled back: every response comes from one of the two."""
    registry = Registry(site.data / "models")
    first = registry.champion()
    assert first
    second = add_twin(site.data / "models", first)
    responses: list[tuple[int, str]] = []
    stop = threading.Event()

    def client(number: int) -> None:
        face = draw_face("sad", np.random.default_rng(number))
        while not stop.is_set():
            response = predict(service, face)
            responses.append((response.status_code, response.json().get("model_version")))

    clients = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for thread in clients:
        thread.start()
    try:
        time.sleep(1)
        registry.record(Decision(candidate=second, champion=first, is_accepted=True, reasons=["a twin"]))
        wait_for(lambda: all(version == second for _, version in responses[-40:]) and len(responses) > 80)
        subprocess.run(
            [sys.executable, "-m", "emotion_assets.steps.packing.models", site.data, "rollback"],
            cwd=CHECKOUT,
            env=site.environment,
            check=True,
            capture_output=True,
        )
        wait_for(lambda: all(version == first for _, version in responses[-40:]))
    finally:
        stop.set()
        for thread in clients:
            thread.join()

    assert {status for status, _ in responses} == {200}
    assert {version for _, version in responses} == {first, second}
    assert registry.champion() == first
    wait_for(lambda: httpx.get(f"{service}/model").json()["model_version"] == first)


def add_twin(models_dir: Path, version: str) -> str:
    """Copy a bundle under a newer version."""
    twin = f"20991231-235959-{version[-8:]}"
    shutil.copytree(models_dir / version, models_dir / twin)
    change_manifest(models_dir / twin, version=twin)
    return twin


def wait_for(condition: Callable[[], bool], seconds: float = 60, log: Path | None = None) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, log.read_text() if log else "it did not happen in time"
        time.sleep(0.1)


def logged_ids(site: Site) -> list[str]:
    return [record["prediction_id"] for record in records_below(site.data)]
