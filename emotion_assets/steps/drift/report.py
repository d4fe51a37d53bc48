"""Write a drift report: the verdict with its windows and images, and Evidently's distributions of what moved most."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd
from jinja2 import Environment

from emotion_assets.core.errors import ImageError
from emotion_assets.core.files import write_atomically, write_json
from emotion_assets.core.images import IMAGE_SIZE_PX, decode_gray
from emotion_assets.steps.drift.verdict import MIN_DISTANCE, DriftState, significance_level
from emotion_assets.steps.drift.windows import VERDICT_NAME, ReportHistory, Source
from emotion_assets.steps.report_images import data_uri

REPORT_NAME: Final = "report.html"
SNAPSHOT_NAME: Final = "evidently.json"

_TEMPLATE: Final = Path(__file__).with_name("verdict.html.jinja")
_BODY: Final = re.compile(r"<body[^>]*>")
_NUM_WINDOWS: Final = 20
_NUM_IMAGES: Final = 16
_NUM_COLUMNS: Final = 6
"""Evidently draws the columns that moved most; each costs 50 ms."""
_THUMBNAIL_PX: Final = 96


def write_drift_report(
    report_dir: Path,
    record: dict[str, Any],
    current: pd.DataFrame,
    reference: pd.DataFrame,
    history: ReportHistory,
    informative: Sequence[Path] = (),
) -> Path | None:
    """Write `report.html` and `evidently.json` (where there are enough images) and `verdict.json`, the last.

    Args:
        report_dir: `reports/drift/<time>`.
        record: the verdict with its source and window, for JSON.
        current: features and predictions of the window, one row per image.
        reference: the same of the validation images.
        history: the reports before this one.
        informative: stored images to show, the most informative first.

    Returns:
        The path of the page, or None where there were too few images for one.
    """
    page = None
    if record["state"] != DriftState.TOO_FEW:
        page = report_dir / REPORT_NAME
        snapshot = _run_evidently(record, current, reference)
        section = _render_verdict(record, previous_windows(history, record["source"]), informative)
        write_atomically(page, _insert(section, snapshot.get_html_str(as_iframe=False)))
        write_atomically(report_dir / SNAPSHOT_NAME, snapshot.dumps())
    write_json(report_dir / VERDICT_NAME, record)
    return page


def previous_windows(history: ReportHistory, source: Source) -> list[dict[str, Any]]:
    """Return the last windows of one source, the newest first: `until`, `state`, counts, `smallest_p_value`."""
    windows = [
        {
            "until": report.record["window"]["until"] or report.folder.name,
            "state": report.record["state"],
            "num_current": report.record["num_current"],
            "num_outliers": report.record["num_outliers"],
            "smallest_p_value": min(report.record["p_values"].values(), default=None),
        }
        for report in history.of(source)
        if report.record["window"]["is_new"]
    ]
    return windows[:_NUM_WINDOWS]


def _render_verdict(record: dict[str, Any], windows: list[dict[str, Any]], informative: Sequence[Path]) -> str:
    gallery = [thumbnail for path in informative[:_NUM_IMAGES] if (thumbnail := _thumbnail(path))]
    tones = {DriftState.OK: "", DriftState.PREDICTION_DRIFT: "acts"}
    template = Environment(autoescape=True).from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(record=record, tone=tones.get(record["state"], "warns"), windows=windows, gallery=gallery)


def _thumbnail(path: Path) -> str | None:
    """Return a small gray copy of a stored image as a data URI; None if it has expired."""
    try:
        gray = decode_gray(path.read_bytes(), IMAGE_SIZE_PX).image
    except (OSError, ImageError):
        return None
    file = io.BytesIO()
    gray.resize((_THUMBNAIL_PX, _THUMBNAIL_PX)).save(file, "WEBP", quality=70)
    return data_uri(file.getvalue())


def _run_evidently(record: dict[str, Any], current: pd.DataFrame, reference: pd.DataFrame) -> Any:
    """Return Evidently's snapshot of the numeric columns with the smallest p-values, at the verdict's thresholds."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    columns = sorted(record["shifts"], key=record["p_values"].__getitem__)[:_NUM_COLUMNS]
    definition = DataDefinition(numerical_columns=columns)
    # At a threshold of zero nothing is drift.
    limits = {
        name: significance_level(name, reference) if record["distances"][name] >= MIN_DISTANCE else 0.0
        for name in columns
    }
    metrics = [ValueDrift(column=name, method="ks", threshold=limits[name]) for name in columns]
    current, reference = current[columns].astype(float), reference[columns].astype(float)
    return Report(metrics).run(Dataset.from_pandas(current, definition), Dataset.from_pandas(reference, definition))


def _insert(section: str, page: str) -> str:
    """Put the verdict before the element that Evidently draws itself into."""
    start = _BODY.search(page)
    position = start.end() if start else 0
    return page[:position] + section + page[position:]
