"""Evidently's report of the same comparison, with tests of the same kind, and our verdict on top."""

from __future__ import annotations

import base64
import io
import logging
import os
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pandas as pd
from jinja2 import Environment

from emotion_assets.core.errors import ImageError, UnusableDataError
from emotion_assets.core.features import EMOTION_COLUMN, FEATURE_COLUMNS
from emotion_assets.core.files import locked, write_atomically, write_json
from emotion_assets.core.images import IMAGE_SIZE_PX, decode_gray
from emotion_assets.steps.drift.tiers import FALSE_ALARM_RATE, NUMERIC_COLUMNS
from emotion_assets.steps.drift.verdict import DriftVerdict
from emotion_assets.steps.drift.windows import VERDICT_NAME, DriftSource, Window, past_verdicts

REPORT_NAME: Final = "report.html"
WORKSPACE_NAME: Final = "evidently"

_logger = logging.getLogger("emotion_assets.drift")
PROJECT_NAME: Final = "emotions"

_TEMPLATE: Final = Path(__file__).with_name("verdict.html.jinja")
_BODY: Final = re.compile(r"<body[^>]*>")
_NUM_WINDOWS: Final = 20
_NUM_SHOWN: Final = 16
_THUMBNAIL_PX: Final = 96


def write_drift_report(
    report_dir: Path,
    current: pd.DataFrame,
    reference: pd.DataFrame,
    verdict: DriftVerdict,
    source: DriftSource,
    window: Window,
    most_informative: Sequence[Path] = (),
) -> Path | None:
    """Write `report.html` (where there are images enough) and `verdict.json` (last).

    The page has our verdict, the windows before and the most atypical images on top, and Evidently's tests below.

    Args:
        report_dir: `reports/drift/<time>`; its neighbours are the windows before.
        current: what was judged.
        reference: the validation faces.
        verdict: about both.
        source: where `current` comes from.
        window: which part of the log it is.
        atypical: kept images to show, the most atypical first.

    Returns:
        The path of the HTML report, or None when there were too few images for one.
    """
    report_dir.mkdir(parents=True, exist_ok=True)
    record = {
        "schema_version": 1,
        "source": source.kind,
        "model_version": source.model_version,
        "num_rejected": source.num_rejected,
        **verdict.as_record(),
        "window": asdict(window),
    }
    path = snapshot = None
    if verdict.state != "too_few":
        path = report_dir / REPORT_NAME
        columns = list(FEATURE_COLUMNS)
        top = _top(record, history_of(report_dir.parent, source), most_informative)
        snapshot = _write_evidently(path, top, current[columns], reference[columns])
    write_json(report_dir / VERDICT_NAME, record)
    if snapshot is not None:
        _keep_snapshot(report_dir.parents[1] / WORKSPACE_NAME, snapshot)
    return path


def history_of(drift_dir: Path, source: DriftSource) -> list[dict[str, Any]]:
    """Return the last windows of the same kind and model, the newest first: `until`, `state`, counts, `smallest_p`."""
    windows = (
        {
            "until": record["window"]["until"] or folder.name,
            "state": record["state"],
            "num_current": record["num_current"],
            "num_outliers": record["num_outliers"],
            "smallest_p": min(record["p_values"].values(), default=None),
        }
        for folder, record in past_verdicts(drift_dir, source.model_version, source.kind)
        if record["window"].get("is_new", True)
    )
    return list(islice(windows, _NUM_WINDOWS))


def _top(record: dict[str, Any], history: list[dict[str, Any]], most_informative: Sequence[Path]) -> str:
    gallery = [thumbnail for path in most_informative[:_NUM_SHOWN] if (thumbnail := _thumbnail(path))]
    tone = {"ok": "", "too_few": "", "prediction_drift": "acts"}.get(record["state"], "warns")
    template = Environment(autoescape=True).from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(title="Drift", record=record, tone=tone, history=history, gallery=gallery)


def _thumbnail(path: Path) -> str | None:
    """Return a small gray copy of a kept image as base64 WebP; None if it is gone by now."""
    try:
        gray = decode_gray(path.read_bytes(), IMAGE_SIZE_PX).image
    except (OSError, ImageError):
        return None
    file = io.BytesIO()
    gray.resize((_THUMBNAIL_PX, _THUMBNAIL_PX)).save(file, "WEBP", quality=70)
    return base64.b64encode(file.getvalue()).decode()


def _write_evidently(path: Path, top: str, current: pd.DataFrame, reference: pd.DataFrame) -> Any:
    """Write the page, and return Evidently's snapshot of the run."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    definition = DataDefinition(numerical_columns=list(NUMERIC_COLUMNS), categorical_columns=[EMOTION_COLUMN])
    # Evidently's defaults ignore the size of the sample and the number of columns. Its chi-squared takes the fractions of
    # the reference as exact, the verdict's does not: with a small one the page may mark the emotion of a window that
    # is ok.
    preset = DataDriftPreset(
        num_method="ks",
        cat_method="chisquare",
        threshold=FALSE_ALARM_RATE / len(FEATURE_COLUMNS),
        drift_share=1 / len(FEATURE_COLUMNS),
    )
    snapshot = Report([preset], include_tests=True).run(
        Dataset.from_pandas(current, definition), Dataset.from_pandas(reference, definition)
    )
    temporary = path.with_suffix(".tmp.html")
    snapshot.save_html(str(temporary))  # a Path would be accepted, and nothing written
    if not temporary.exists():
        raise UnusableDataError(f"Evidently wrote no report to {temporary}. Check that the folder is writable.")
    page = temporary.read_text(encoding="utf-8")
    temporary.unlink()
    start = _BODY.search(page)
    # Evidently's page draws itself into its own element; ours stands before that.
    place = start.end() if start else 0
    write_atomically(path, page[:place] + top + page[place:])
    return snapshot


def _keep_snapshot(workspace_dir: Path, snapshot: Any) -> None:
    """Add a run to the workspace, or to a new one: a kill may leave a torn file there, and Evidently reads all of them.

    The verdict stands without it, so no failure holds up the check.
    """
    try:
        _add_to_workspace(workspace_dir, snapshot)
    except Exception:
        _logger.exception("Evidently's workspace %s cannot be used; it is set aside for a new one", workspace_dir)
        try:
            workspace_dir.replace(workspace_dir.with_name(f"{workspace_dir.name}-{time.time_ns()}"))
            _add_to_workspace(workspace_dir, snapshot)
        except Exception:
            _logger.exception("`make drift-ui` will not show this window")


def _add_to_workspace(workspace_dir: Path, snapshot: Any) -> None:
    """Keep the run where `make drift-ui` shows all of them over time."""
    from evidently.ui.workspace import Workspace

    with locked(workspace_dir / ".lock"):
        workspace = Workspace.create(str(workspace_dir))
        found = workspace.search_project(PROJECT_NAME)
        project = found[0] if found else workspace.create_project(PROJECT_NAME)
        workspace.add_run(project.id, snapshot, include_data=False)
