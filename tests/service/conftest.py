"""What the service's tests share: a client of the module's own `app`, and what that app logged."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from emotion_service.app import EmotionApp


@pytest.fixture
def client(app: EmotionApp) -> Iterator[TestClient]:
    """A client of the application that the test's module makes."""
    with TestClient(app.routes()) as test_client:
        yield test_client


def logged(app: EmotionApp) -> list[dict[str, object]]:
    """Close the application and return every record of its log."""
    app.close()
    paths = (app.settings.data_dir / "predictions").rglob("*.jsonl")
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]
