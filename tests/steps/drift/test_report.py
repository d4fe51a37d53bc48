from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from emotion_assets.steps.drift.report import SNAPSHOT_NAME, previous_windows, write_drift_report
from emotion_assets.steps.drift.windows import VERDICT_NAME, ReportHistory, Source
from tests.steps.drift.helpers import assess_tables, random_window

WINDOW = {"since": "", "until": "", "is_new": True, "is_incident": False, "labelled": None}


def record_of(current: pd.DataFrame, reference: pd.DataFrame, **window: Any) -> dict[str, Any]:
    record = {"source": Source.PREDICTIONS, "model_version": "v1", "window": WINDOW | window}
    return record | asdict(assess_tables(current, reference))


@pytest.fixture(scope="module")
def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """A darker window, and the reference."""
    return random_window(200, seed=1, shift=-0.2), random_window(1000, seed=0)


def test_the_page_needs_no_network(tmp_path: Path, tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """It is one file of moderate size beside the record of the verdict and Evidently's snapshot."""
    record = record_of(*tables)

    page = write_drift_report(tmp_path, record, *tables, ReportHistory(tmp_path, "v1"))

    assert page is not None
    text = page.read_text()
    assert "brightness" in text
    assert "<script src=" not in text
    assert page.stat().st_size < 6_000_000
    assert json.loads((tmp_path / VERDICT_NAME).read_text()) == json.loads(json.dumps(record))
    assert json.loads((tmp_path / SNAPSHOT_NAME).read_text())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evidently.json", "report.html", "verdict.json"]


def test_the_page_begins_with_the_verdict_the_windows_and_the_images(
    tmp_path: Path, tables: tuple[pd.DataFrame, pd.DataFrame], faces: list[tuple[str, bytes]]
) -> None:
    """Above Evidently's distributions stand the cause, the previous windows and a few stored images."""
    calm = record_of(random_window(200, seed=2), tables[1], until="2025-01-01T00:00:00")
    write_drift_report(
        tmp_path / "20250101T000000000000", calm, random_window(200, seed=2), tables[1], ReportHistory(tmp_path, "v1")
    )
    images = [tmp_path / f"{number}.jpeg" for number in range(7)]
    for path, (_, content) in zip(images[:5], faces, strict=False):
        path.write_bytes(content)
    images[5].write_bytes(b"torn")
    labelled = {"num_labels": 40, "accuracy": 0.75, "low": 0.6, "high": 0.86}
    record = record_of(*tables, since="a", until="b", is_incident=True, labelled=labelled)

    page = write_drift_report(tmp_path / "now", record, *tables, ReportHistory(tmp_path, "v1"), images)

    assert page is not None
    text = page.read_text()
    top = text[text.index('<section id="emotion-verdict">') : text.index("</section>")]
    assert text.index("<body") < text.index('<section id="emotion-verdict">')
    assert record["cause"].replace("<", "&lt;") in top
    assert "input drift" in top
    assert "An incident is open" in top
    assert "75.0 % (95 % interval 60.0 to 86.0 %)" in top
    assert "Previous windows" in top
    assert "<td>2025-01-01T00:00:00</td><td>ok</td><td>200</td>" in top
    assert top.count("data:image/webp;base64,") == 5
    assert "http" not in top


def test_too_few_images_have_a_verdict_without_a_page(tmp_path: Path) -> None:
    """Distributions of a handful of images say nothing."""
    current, reference = random_window(3, seed=1), random_window(1000, seed=0)

    page = write_drift_report(
        tmp_path, record_of(current, reference), current, reference, ReportHistory(tmp_path, "v1")
    )

    assert page is None
    assert [path.name for path in tmp_path.iterdir()] == [VERDICT_NAME]
    assert json.loads((tmp_path / VERDICT_NAME).read_text())["state"] == "too_few"


def test_previous_windows_are_those_of_one_source(tmp_path: Path) -> None:
    """A window that was assessed again is listed once; a folder, which has no times, by the time of its check."""
    for number, (source, until, is_new, p_values) in enumerate(
        [
            ("predictions", "a", True, {"noise": 0.2, "emotion": 0.1}),
            ("predictions", "a", False, {"noise": 0.2, "emotion": 0.1}),
            ("external", "", True, {}),
            ("predictions", "b", True, {}),
        ]
    ):
        folder = tmp_path / f"2025010{number + 1}T000000000000"
        folder.mkdir()
        record = {"model_version": "v1", "source": source, "state": "ok", "num_current": number, "num_outliers": 0}
        record |= {"p_values": p_values, "window": {"until": until, "is_new": is_new}}
        (folder / VERDICT_NAME).write_text(json.dumps(record))
    history = ReportHistory(tmp_path, "v1")

    predictions = previous_windows(history, Source.PREDICTIONS)

    assert [(row["until"], row["num_current"], row["smallest_p_value"]) for row in predictions] == [
        ("b", 3, None),
        ("a", 0, 0.1),
    ]
    assert [row["until"] for row in previous_windows(history, Source.EXTERNAL)] == ["20250103T000000000000"]
