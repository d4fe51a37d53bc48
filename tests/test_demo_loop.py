"""The loop as a whole: Dagster's daemon and the service for real, from bad images to better answers."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture
def demo_loop(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, which is no package's part."""
    monkeypatch.syspath_prepend(CHECKOUT / "scripts")
    import demo_loop

    return demo_loop


def test_a_rejected_model_ends_the_wait(demo_loop: ModuleType, tmp_path: Path) -> None:
    """The loop continues waiting while nothing is decided, and says why when the gate rejected what it waits for."""
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


def test_the_circle_closes(demo_loop: ModuleType, tmp_path: Path) -> None:
    """Drift is named, labels are asked for and given, the sensor retrains, the gate accepts, the service follows."""
    told: list[str] = []

    circle = demo_loop.run_loop(tmp_path, num_per_emotion=120, num_images=150, tell=told.append)

    log = "\n".join(told)
    assert circle.state_on_good in {"ok", "input_drift", "outliers"}, log
    assert "blurrier" in circle.cause, log
    assert "darker" in circle.cause or "contrast" in circle.cause, log
    assert circle.num_requested == 100
    assert circle.num_labels >= 150
    assert circle.trigger == "drift"
    assert circle.second_model > circle.first_model
    assert circle.num_failed_requests == 0
    assert circle.accuracy_on_bad_after > circle.accuracy_on_bad_before + 0.1, log
