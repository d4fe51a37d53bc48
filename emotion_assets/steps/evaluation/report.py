"""Write an evaluation report: a self-contained HTML page, `scores.json` with a stable schema, and all predictions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from emotion_assets.core.bundle import Manifest
from emotion_assets.core.features import probability_columns
from emotion_assets.core.files import write_atomically, write_json
from emotion_assets.steps.evaluation import figures
from emotion_assets.steps.evaluation.baseline import BaselineResult
from emotion_assets.steps.evaluation.intervals import Interval
from emotion_assets.steps.evaluation.scores import SCORE_NAMES, LabelledPredictions, Scores, risk_coverage
from emotion_assets.steps.evaluation.slices import Slice
from emotion_assets.steps.evaluation.subjects import SubjectScores
from emotion_assets.steps.registry.registry import SCORES_NAME, Decision
from emotion_assets.steps.report_images import data_uri
from emotion_assets.steps.splits.splits import Split
from emotion_assets.steps.training.figures import learning_curve_figure

REPORT_NAME: Final = "report.html"
PREDICTIONS_NAME: Final = "predictions.parquet"
SCHEMA_VERSION: Final = 3

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
    """How the test split changed since the champion was accepted, and the champion's accuracy on old and new images."""

    num_before: int
    num_new: int
    num_removed: int
    accuracy_on_known: float | None
    accuracy_on_new: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """All results of the evaluation of a candidate."""

    manifest: Manifest
    decision: Decision
    scores: Scores
    intervals: dict[str, Interval]
    slices: list[Slice]
    majority_scores: Scores
    champion_scores: Scores | None = None
    champion_intervals: dict[str, Interval] | None = None
    test_set_change: TestSetChange | None = None
    baseline: BaselineResult | None = None
    external: Scores | None = None
    """On labelled images of another source, if there are any."""
    subjects: SubjectScores | None = None
    """By subject, if at least two are known."""
    is_divided: bool = False
    """Whether a recording was divided among the splits, so that the scores hold for it alone."""

    def as_record(self) -> dict[str, Any]:
        """Return the content of `scores.json`, apart from the risk-coverage curve."""
        record = asdict(self)
        del record["manifest"]
        return {
            "schema_version": SCHEMA_VERSION,
            "version": self.manifest.version,
            "data_fingerprint": self.manifest.data_fingerprint,
            "test": record.pop("scores"),
            "gate": record.pop("decision"),
            **record,
        }


def write_report(
    report_dir: Path,
    evaluation: Evaluation,
    split: Split,
    predictions: LabelledPredictions,
    *,
    keep_predictions: bool = False,
) -> dict[str, bytes]:
    """Write `report.html`, `predictions.parquet` and `scores.json` (last); return the images by name.

    With `keep_predictions`, an existing `predictions.parquet` stays: it names the test images of the acceptance.
    """
    images, captions = _draw_images(evaluation, split, predictions)
    curve = risk_coverage(predictions)
    write_atomically(report_dir / REPORT_NAME, _render_page(evaluation, images, captions, curve))
    if not (keep_predictions and (report_dir / PREDICTIONS_NAME).exists()):
        table = pd.DataFrame(predictions.probabilities, columns=probability_columns(predictions.emotions))
        table.insert(0, "content_hash", list(split.content_hashes))
        table.insert(1, "true_emotion", [predictions.emotions[index] for index in predictions.class_indices])
        write_atomically(report_dir / PREDICTIONS_NAME, table.to_parquet(index=False))
    write_json(report_dir / SCORES_NAME, {**evaluation.as_record(), "risk_coverage": curve})
    return images


def measure_test_set_change(
    champion_report_dir: Path, split: Split, champion: LabelledPredictions, is_unseen: npt.NDArray[np.bool_]
) -> TestSetChange | None:
    """Compare the test split with the one on which the champion was accepted; None if there is no report of it.

    Accuracies are those on the images that `is_unseen`, bool (image,), marks: it was not trained on these.
    """
    path = champion_report_dir / PREDICTIONS_NAME
    if not path.exists():
        return None
    before = set(pd.read_parquet(path, columns=["content_hash"])["content_hash"])
    is_known = np.array([content_hash in before for content_hash in split.content_hashes], dtype=np.bool_)
    known, new, is_correct = is_known & is_unseen, ~is_known & is_unseen, champion.is_correct
    return TestSetChange(
        num_before=len(before),
        num_new=int((~is_known).sum()),
        num_removed=len(before) - int(is_known.sum()),
        accuracy_on_known=float(is_correct[known].mean()) if known.any() else None,
        accuracy_on_new=float(is_correct[new].mean()) if new.any() else None,
    )


def render(template: str, evaluation: Evaluation, **values: Any) -> str:
    """Render a template of this folder."""
    shown = {name: getattr(evaluation, name) for name in ("manifest", "decision", "scores")}
    return _TEMPLATES.get_template(template).render(evaluation=evaluation, score_names=SCORE_NAMES, **shown, **values)


def _draw_images(
    evaluation: Evaluation, split: Split, predictions: LabelledPredictions
) -> tuple[dict[str, bytes], dict[str, list[str]]]:
    mistakes, mistake_captions = figures.mistakes_sheet(predictions, split)
    uncertain, uncertain_captions = figures.uncertain_sheet(predictions, split)
    images = {
        "confusion": figures.confusion_figure(evaluation.scores),
        "reliability": figures.reliability_figure(predictions, evaluation.manifest.temperature),
        "precision_recall": figures.precision_recall_figure(predictions),
        "risk_coverage": figures.risk_coverage_figure(predictions),
        "mistakes": mistakes,
        "uncertain": uncertain,
    }
    if evaluation.manifest.training["history"]:
        images["learning_curves"] = learning_curve_figure(evaluation.manifest.training["history"])
    return images, {"mistakes": mistake_captions, "uncertain": uncertain_captions}


def _render_page(
    evaluation: Evaluation,
    images: dict[str, bytes],
    captions: dict[str, list[str]],
    curve: list[dict[str, float]],
) -> str:
    return render(
        "report.html.jinja",
        evaluation,
        images={name: data_uri(content) for name, content in images.items()},
        captions=captions,
        curve=curve,
        half=next(point for point in curve if point["coverage"] >= 0.5 or point is curve[-1]),
    )
