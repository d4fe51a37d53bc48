"""A container's health check passes only while every worker serves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from emotion_service.healthcheck import problem


class Service(BaseHTTPRequestHandler):
    """Answers as two workers do of which one serves a new version."""

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
    """Workers of all versions count."""
    assert problem(address(server), 2) == ""


def test_a_dead_worker_is_noticed(server: ThreadingHTTPServer) -> None:
    """One too few is said with both numbers."""
    assert problem(address(server), 3) == "2 of 3 workers serve a model"


def test_a_service_that_is_not_ready_is_ill(server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 from /readyz is enough."""
    monkeypatch.setitem(Service.statuses, "/readyz", 503)

    assert "503" in problem(address(server), 1)


def test_nobody_there_is_ill() -> None:
    """A rejected connection is a sentence, not a traceback."""
    assert "does not answer" in problem("http://127.0.0.1:9", 1)
