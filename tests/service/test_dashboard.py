"""The Grafana dashboard asks for numbers that the service has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from emotion_service.app import EmotionApp
from emotion_service.settings import Settings

DASHBOARD = Path(__file__).parents[2] / "docs" / "operations" / "grafana_dashboard.json"


@pytest.fixture
def app(bundle_dir: Path, tmp_path: Path) -> EmotionApp:
    emotion_app = EmotionApp(Settings(tmp_path, num_workers=1, max_concurrency=4, timeout_seconds=20))
    emotion_app.load(bundle_dir)
    return emotion_app


def test_every_number_and_label_of_the_dashboard_exists(client: TestClient, face: bytes) -> None:
    """Each name in an expression, and each label in braces or after `by`, is in /metrics after some traffic."""
    prediction = client.post("/predict", files={"image": face}).json()
    client.post("/predict", files={"image": b"broken"})
    client.post("/feedback", json={"prediction_id": prediction["prediction_id"], "emotion": "sad"})
    text = client.get("/metrics").text
    panels = json.loads(DASHBOARD.read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]

    for expression in expressions:
        names = re.findall(r"emotion_[a-z_]+", expression)
        assert names or "vector" in expression
        for name in names:
            assert re.search(rf"^{name}[ {{]", text, re.MULTILINE), name
        labels = re.findall(r"(\w+)=~?\"", expression) + [
            label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")
        ]
        for label in labels:
            assert f'{label}="' in text, label
    assert len(expressions) >= 10
