from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from emotion_assets.steps.drift.alerts import Alert, AlertTargets, send_alert

ALERT = Alert("Answers changed.", "Images are darker.", "http://127.0.0.1/report", "v1", "clear")


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[Any], list[int]]]:
    """A local receiver: its address, what it got, and the statuses that it answers with."""
    got: list[Any] = []
    statuses = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(statuses[0])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hook", got, statuses
        server.shutdown()
        thread.join()


def test_an_alert_reaches_log_and_webhook(webhook: tuple[str, list[Any], list[int]]) -> None:
    """The receiver gets title, text, link, version and severity as JSON."""
    address, got, _ = webhook
    lines: list[str] = []

    delivered = send_alert(ALERT, AlertTargets(webhook_url=address), lines.append)

    assert delivered == ["log", "webhook"]
    assert got[0]["model_version"] == "v1"
    assert got[0]["text"] == "Answers changed. Images are darker. http://127.0.0.1/report"
    assert lines == ["Answers changed. Images are darker. http://127.0.0.1/report"]


def test_an_alert_reaches_a_mail_server() -> None:
    """A small SMTP server takes the message with its subject and text."""
    received: list[str] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 test\r\n")
        in_data = False
        while line := await reader.readline():
            text = line.decode().rstrip("\r\n")
            if in_data:
                in_data = text != "."
                received.append(text)
                writer.write(b"" if in_data else b"250 ok\r\n")
            elif text.upper() == "DATA":
                in_data = True
                writer.write(b"354 go\r\n")
            else:
                writer.write(b"221 bye\r\n" if text.upper() == "QUIT" else b"250 ok\r\n")
            await writer.drain()
        writer.close()

    async def serve() -> list[str]:
        async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            targets = AlertTargets(email_to="team@example.org", smtp_server=f"127.0.0.1:{port}")
            return await asyncio.to_thread(send_alert, ALERT, targets, lambda _: None)

    assert asyncio.run(serve()) == ["log", "e-mail"]
    assert "Subject: Answers changed." in received
    assert any("Images are darker." in line for line in received)


@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        (AlertTargets(webhook_url="file:///etc/passwd"), "must begin with http"),
        (AlertTargets(webhook_url="http://127.0.0.1:9/"), "rejected"),
        (AlertTargets(webhook_url="http://127.0.0.1:abc/"), "nonnumeric port"),
        (AlertTargets(email_to="a@example.org"), "host:port"),
        (AlertTargets(email_to="a@example.org", smtp_server="127.0.0.1:9"), "rejected"),
    ],
)
def test_a_target_that_fails_is_reported_and_holds_up_nothing(targets: AlertTargets, reason: str) -> None:
    """The log says what went wrong; nothing is raised."""
    lines: list[str] = []

    assert send_alert(ALERT, targets, lines.append) == ["log"]
    assert reason in lines[1]


def test_a_webhook_that_answers_an_error_is_reported(webhook: tuple[str, list[Any], list[int]]) -> None:
    """A rejection by the receiver counts as not delivered."""
    address, _, statuses = webhook
    statuses[0] = 500
    lines: list[str] = []

    assert send_alert(ALERT, AlertTargets(webhook_url=address), lines.append) == ["log"]
    assert "answered 500" in lines[1]
