from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from emotion_assets.steps.registry.decision import Decision, read_decision


def test_a_decision_is_read_from_the_report(tmp_path: Path) -> None:
    """Fields that were added to the record are ignored, missing ones have their defaults."""
    decision = Decision(candidate="new", champion="old", is_accepted=False, reasons=["slow"], latency_ms=80.0)

    (tmp_path / "scores.json").write_text(json.dumps({"gate": asdict(decision) | {"at": "now"}}))
    assert read_decision(tmp_path) == decision

    (tmp_path / "scores.json").write_text(json.dumps({"gate": {"candidate": "x", "is_accepted": True, "reasons": []}}))
    assert read_decision(tmp_path) == Decision(candidate="x", is_accepted=True, reasons=[])
