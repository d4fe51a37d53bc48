"""Write an evaluation: one HTML file without outside parts, JSON with a stable schema, and every answer."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from emotion_assets.core.bundle import Manifest
from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.files import write_atomically, write_json
from emotion_assets.steps.evaluation.baseline import BaselineResult
from emotion_assets.steps.evaluation.figures import (
    confusion_figure,
    learning_curve_figure,
    mistakes_sheet,
    precision_recall_figure,
    reliability_figure,
    risk_coverage_figure,
    uncertain_sheet,
)
from emotion_assets.steps.evaluation.intervals import Interval
from emotion_assets.steps.evaluation.scores import LabelledPredictions, Scores, risk_coverage
from emotion_assets.steps.evaluation.slices import Slice
from emotion_assets.steps.registry.decision import Decision
from emotion_assets.steps.registry.registry import SCORES_NAME
from emotion_assets.steps.splits.splits import Split

REPORT_NAME: Final = "report.html"
PREDICTIONS_NAME: Final = "predictions.parquet"
SCHEMA_VERSION: Final = 2

_TEMPLATES: Final = Environment(
    loader=PackageLoader("emotion_assets.steps.evaluation", "."),
    autoescape=select_autoescape(["html.jinja"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters["interval"] = lambda pair: f"{pair[0]:.3f} to {pair[1]:.3f}"


@dataclass(frozen=True, slots=True)
class TestSetChange:
    """What became of the champion's test faces since it was accepted, and how it does on those that came."""

    num_before: int
    num_new: int
    num_gone: int
    accuracy_on_known: float | None
    accuracy_on_new: float | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that was found out about a candidate."""

    manifest: Manifest
    scores: Scores
    intervals: dict[str, Interval]
    decision: Decision
    champion_scores: Scores | None
    champion_intervals: dict[str, Interval] | None
    test_set_change: TestSetChange | None
    majority_scores: Scores
    baseline: BaselineResult | None
    slices: list[Slice]
    external: Scores | None
    """On labelled images of another source, where there are any."""

    def as_record(self) -> dict[str, Any]:
        """Return what `scores.json` holds, apart from the risk-coverage curve."""
        record = asdict(self)
        manifest = record.pop("manifest")
        return {
            "schema_version": SCHEMA_VERSION,
            "version": manifest["version"],
            "data_fingerprint": manifest["data_fingerprint"],
            "test": record.pop("scores"),
            "gate": record.pop("decision"),
            **record,
        }


def write_report(
    report_dir: Path,
    evaluation: Evaluation,
    split: Split,
    answers: LabelledPredictions,
    *,
    keeps_predictions: bool = False,
) -> dict[str, bytes]:
    """Write `report.html`, `predictions.parquet` and `scores.json` (last) into `report_dir`.

    Args:
        report_dir: of this model.
        evaluation: what is told.
        split: the test faces.
        answers: of the model for these.
        keeps_predictions: whether an earlier `predictions.parquet` stays: it says on which faces the model was
            accepted.

    Returns:
        The images of the report by name, for the asset's metadata.
    """
    images, captions = _images(evaluation, split, answers)
    curve = risk_coverage(answers)
    write_atomically(report_dir / REPORT_NAME, _page(evaluation, images, captions, curve))
    table = pd.DataFrame(answers.probabilities, columns=[f"p_{emotion}" for emotion in EMOTIONS])
    table.insert(0, "content_hash", list(split.content_hashes))
    table.insert(1, "true_emotion", [EMOTIONS[index] for index in answers.class_indices])
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    if not (keeps_predictions and (report_dir / PREDICTIONS_NAME).exists()):
        write_atomically(report_dir / PREDICTIONS_NAME, buffer.getvalue())
    write_json(report_dir / SCORES_NAME, {**evaluation.as_record(), "risk_coverage": curve})
    return images


def read_decision(report_dir: Path) -> dict[str, Any]:
    """Return the gate's record of a written report."""
    record: dict[str, Any] = json.loads((report_dir / SCORES_NAME).read_text())
    gate: dict[str, Any] = record["gate"]
    return gate


def render(template: str, **values: Any) -> str:
    """Return a template of this folder, filled in."""
    return _TEMPLATES.get_template(template).render(emotions=EMOTIONS, **values)


def _images(
    evaluation: Evaluation, split: Split, answers: LabelledPredictions
) -> tuple[dict[str, bytes], dict[str, list[str]]]:
    mistakes, mistake_captions = mistakes_sheet(answers, split)
    uncertain, uncertain_captions = uncertain_sheet(answers, split)
    images = {
        "confusion": confusion_figure(evaluation.scores),
        "reliability": reliability_figure(answers, evaluation.manifest.temperature),
        "precision_recall": precision_recall_figure(answers),
        "risk_coverage": risk_coverage_figure(answers),
        "mistakes": mistakes,
        "uncertain": uncertain,
    }
    if evaluation.manifest.training["history"]:
        images["learning_curves"] = learning_curve_figure(evaluation.manifest.training["history"])
    return images, {"mistakes": mistake_captions, "uncertain": uncertain_captions}


def _page(
    evaluation: Evaluation,
    images: dict[str, bytes],
    captions: dict[str, list[str]],
    curve: list[dict[str, float]],
) -> str:
    sources = {}
    for name, content in images.items():
        kind = "webp" if content[:4] == b"RIFF" else "png"
        sources[name] = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    rows = {"this model": (evaluation.scores, evaluation.intervals)}
    if evaluation.champion_scores and evaluation.champion_intervals:
        rows[f"champion {evaluation.decision.champion}"] = (evaluation.champion_scores, evaluation.champion_intervals)
    best_half = next(point for point in curve if point["coverage"] >= 0.5 - np.finfo(float).eps or point is curve[-1])
    return render(
        "report.html.jinja",
        evaluation=evaluation,
        manifest=evaluation.manifest,
        decision=evaluation.decision,
        scores=evaluation.scores,
        rows=rows,
        images=sources,
        captions=captions,
        curve=curve,
        best_half=best_half,
    )
