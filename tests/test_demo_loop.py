"""The loop as a whole: Dagster's daemon and the service for real, from degraded images to better predictions."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture
def demo_loop(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, which is not part of a package."""
    monkeypatch.syspath_prepend(CHECKOUT / "scripts")
    import demo_loop

    return demo_loop


def test_a_rejected_model_ends_the_wait(demo_loop: ModuleType, tmp_path: Path) -> None:
    """It waits while nothing is decided, and gives the reasons of a rejection."""
    stage = demo_loop.Stage(tmp_path, tmp_path / "run.yaml")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "champion.json").write_text(json.dumps({"version": "20260101-000000-aaaaaaaa"}))
    assert stage.accepted_after("20260101-000000-aaaaaaaa") is None
    assert stage.accepted_after("20250101-000000-bbbbbbbb") == "20260101-000000-aaaaaaaa"
    report_dir = tmp_path / "reports" / "evaluation" / "20260102-000000-cccccccc"
    report_dir.mkdir(parents=True)
    gate = {"candidate": report_dir.name, "is_accepted": False, "reasons": ["Recall of fear is 0.000."]}
    (report_dir / "scores.json").write_text(json.dumps({"gate": gate}))

    with pytest.raises(SystemExit, match=r"rejected 20260102-000000-cccccccc: Recall of fear is 0\.000\."):
        stage.accepted_after("20260101-000000-aaaaaaaa")


def test_the_loop_closes(demo_loop: ModuleType, tmp_path: Path) -> None:
    """Drift is named, labels are asked for and given, the sensor retrains, the gate accepts, the service follows."""
    lines: list[str] = []

    result = demo_loop.run_loop(tmp_path, num_per_class=120, num_images=150, tell=lines.append)

    log = "\n".join(lines)
    assert result.state_before_drift in {"ok", "input_drift", "outliers"}, log
    assert "blurrier" in result.cause, log
    assert "darker" in result.cause or "contrast" in result.cause, log
    assert result.num_requested == 100
    assert result.num_labels >= 150
    assert result.trigger == "drift"
    assert result.second_model > result.first_model
    assert result.num_failed_requests == 0
    assert result.accuracy_after_retraining > result.accuracy_in_drift + 0.1, log
