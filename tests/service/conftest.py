"""Shared by the service's tests: applications, a client, a real server, and what an application logged."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import uvicorn
from starlette.testclient import TestClient

from emotion_service.app import EmotionApp
from emotion_service.settings import Settings


def make_app(data_dir: Path, bundle_dir: Path | None = None, **settings: Any) -> EmotionApp:
    """Return an application that logs below `data_dir`, with a model if one is given."""
    defaults: dict[str, Any] = {"workers": 1, "max_concurrency": 4, "timeout_seconds": 20}
    app = EmotionApp(Settings(data_dir=data_dir, **(defaults | settings)))
    if bundle_dir:
        app.load(bundle_dir)
    return app


@pytest.fixture
def app(bundle_dir: Path, tmp_path: Path) -> EmotionApp:
    """An application with a model, which logs and stores images below `tmp_path`."""
    return make_app(tmp_path, bundle_dir, store_images=True)


@pytest.fixture
def client(app: EmotionApp) -> Iterator[TestClient]:
    """A client of `app`."""
    with TestClient(app.routes()) as test_client:
        yield test_client


def logged(app: EmotionApp) -> list[dict[str, Any]]:
    """Close the application and return every record of its log."""
    app.close()
    return records_below(app.settings.data_dir)


def records_below(data_dir: Path) -> list[dict[str, Any]]:
    """Return every record of the prediction log so far, without a line that is still being written."""
    texts = [path.read_text() for path in sorted((data_dir / "predictions").rglob("*.jsonl"))]
    return [json.loads(line) for text in texts for line in text.splitlines(keepends=True) if line.endswith("\n")]


class RunningServer:
    """An application behind a real server on a real port."""

    def __init__(self, app: EmotionApp) -> None:
        self.app = app
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.server = uvicorn.Server(uvicorn.Config(app.routes(), log_level="critical", ws="none", lifespan="off"))
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],))

    def __enter__(self) -> Self:
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.listener.close()
