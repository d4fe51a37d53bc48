"""The loop as a whole: Dagster's daemon and the service for real, from bad pictures to better answers."""

from __future__ import annotations

import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]


def test_the_circle_closes(tmp_path: Path) -> None:
    """Drift is named, labels are asked for and given, the sensor retrains, the gate accepts, the service follows."""
    sys.path.insert(0, str(CHECKOUT / "scripts"))
    try:
        from demo_loop import run_circle
    finally:
        sys.path.pop(0)
    told: list[str] = []

    circle = run_circle(tmp_path, num_per_emotion=120, num_pictures=150, tell=told.append)

    log = "\n".join(told)
    assert circle.state_on_good in {"ok", "inputs_changed", "odd_pictures"}, log
    assert "blurrier" in circle.cause, log
    assert "darker" in circle.cause or "contrast" in circle.cause, log
    assert circle.num_requested == 100
    assert circle.num_labels >= 150
    assert circle.trigger == "drift"
    assert circle.second_model > circle.first_model
    assert circle.num_failed_requests == 0
    assert circle.accuracy_on_bad_after > circle.accuracy_on_bad_before + 0.1, log
