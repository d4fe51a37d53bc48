"""The Grafana dashboard queries metrics that the service exports."""

from __future__ import annotations

import json
import re
from pathlib import Path

from starlette.testclient import TestClient

DASHBOARD = Path(__file__).parents[2] / "docs" / "operations" / "grafana_dashboard.json"


def test_every_metric_and_label_of_the_dashboard_exists(client: TestClient, face: bytes) -> None:
    """Each name in an expression, and each label in braces or after `by`, is in /metrics after some requests."""
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
