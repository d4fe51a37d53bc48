from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from emotion_assets.steps.drift.alerts import LOG_CHANNEL, Alert, channel_name, send_alert

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # Apprise imports it

ALERT = Alert("Predictions drifted.", "Images are darker.", "http://127.0.0.1/report")


@dataclass
class Receiver:
    """A local HTTP server that Apprise's `json` service posts to."""

    address: str = ""
    status: int = 200
    received: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that accepts everything, unless told otherwise."""
    result = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            result.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(result.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        result.address = f"127.0.0.1:{server.server_port}/"
        yield result
        server.shutdown()
        thread.join()


def test_an_alert_reaches_the_log_and_a_channel(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """The receiver gets title, text and link, and the log the same."""
    url = f"json://{receiver.address}"

    assert send_alert(ALERT, [url]) == [LOG_CHANNEL, channel_name(url)]
    (message,) = receiver.received
    assert message["title"] == ALERT.title
    assert ALERT.text in message["message"]
    assert ALERT.link in message["message"]
    assert "Predictions drifted. Images are darker. http://127.0.0.1/report" in caplog.messages


def test_a_failed_delivery_is_retried_alone(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """A channel that rejects an alert gets it again; those that took it do not."""
    receiver.status = 500
    urls = [f"json://{receiver.address}", f"json://{receiver.address}other"]

    notified = send_alert(ALERT, urls)
    assert notified == [LOG_CHANNEL]
    assert f"The alert was not delivered through {channel_name(urls[0])}. The next check tries again." in caplog.text

    receiver.status = 200
    notified += send_alert(ALERT, urls[:1], notified)
    assert send_alert(ALERT, urls, notified) == [channel_name(urls[1])]
    assert len(receiver.received) == 4
    assert send_alert(ALERT, urls, [*notified, channel_name(urls[1])]) == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("json://127.0.0.1:9/", "not delivered"),
        ("nosuch://host", "invalid address"),
        ("json://", "invalid address"),
        ("file:///etc/passwd", "invalid address"),
        ("", "invalid address"),
    ],
)
def test_a_wrong_address_is_reported(url: str, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    """The log says what is wrong with which channel; nothing is raised."""
    assert send_alert(ALERT, [url]) == [LOG_CHANNEL]
    assert any(reason in message and channel_name(url) in message for message in caplog.messages)


@pytest.mark.parametrize("scheme", ["json", "nosuch"])
def test_secrets_are_not_logged(receiver: Receiver, scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a channel's name nor any log line has the password of an address, even where it fails."""
    caplog.set_level(logging.INFO)
    receiver.status = 500
    url = f"{scheme}://user:hunter2secret@{receiver.address}?token=hunter2secret"

    send_alert(ALERT, [url])

    assert "hunter2" not in channel_name(url) + caplog.text
    assert channel_name(url).startswith(f"{scheme}-")
    assert channel_name(url) != channel_name(url.replace("hunter2", "other"))
