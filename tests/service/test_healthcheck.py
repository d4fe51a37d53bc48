"""The container's health check passes only while every worker serves."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from emotion_service import healthcheck
from emotion_service.healthcheck import find_problem


class Service(BaseHTTPRequestHandler):
    """Responds like two workers of which one serves a new version."""

    statuses: ClassVar = {"/readyz": 200, "/metrics": 200}
    metrics = b'emotion_model_workers{model_version="a"} 1.0\nemotion_model_workers{model_version="b"} 1.0\nother 9\n'

    def do_GET(self) -> None:
        self.send_response(self.statuses[self.path])
        self.end_headers()
        self.wfile.write(self.metrics)

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def address(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_all_workers_serve(server: ThreadingHTTPServer) -> None:
    """Workers of all versions are counted."""
    assert find_problem(address(server), 2) == ""


def test_a_dead_worker_is_detected(server: ThreadingHTTPServer) -> None:
    """The message has both numbers."""
    assert find_problem(address(server), 3) == "2 of 3 workers serve a model"


def test_a_service_that_is_not_ready_is_unhealthy(server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 from /readyz is enough."""
    monkeypatch.setitem(Service.statuses, "/readyz", 503)

    assert "503" in find_problem(address(server), 1)


def test_a_stopped_service_is_unhealthy() -> None:
    """A refused connection gives a message, not a traceback."""
    assert "does not respond" in find_problem("http://127.0.0.1:9", 1)


def test_the_check_uses_no_proxy(server: ThreadingHTTPServer) -> None:
    """A machine's http_proxy is not for requests to itself."""
    environment = os.environ | {
        "http_proxy": "http://127.0.0.1:9",
        "no_proxy": "",
        "BENTOML_PORT": str(server.server_port),
        "EMOTION_WORKERS": "2",
    }
    check = subprocess.run(
        [sys.executable, healthcheck.__file__], check=False, env=environment, capture_output=True, text=True
    )

    assert (check.returncode, check.stderr) == (0, "")
