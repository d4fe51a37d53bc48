"""Draw what a person wants to see of an evaluation, and write it as one HTML file without outside parts."""

from __future__ import annotations

import base64
import html
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay

from emotion_assets.core.bundle import Manifest
from emotion_assets.core.emotions import EMOTIONS
from emotion_assets.core.files import write_atomically, write_json
from emotion_assets.steps.data.gallery import contact_sheet
from emotion_assets.steps.data.split import Split
from emotion_assets.steps.evaluation.decision import Decision
from emotion_assets.steps.evaluation.evaluate import NUM_CALIBRATION_BINS, Answers, Scores

_NUM_MISTAKES: Final = 24
_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #1c2430; background: #fff }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .3rem .8rem; text-align: right;
       border-bottom: 1px solid #d5dbe3 } td:first-child, th:first-child { text-align: left }
img { max-width: 100%; height: auto } .accepted { color: #0a6b3d } .refused { color: #a3261b }
@media (prefers-color-scheme: dark) { body { color: #e4e9f0; background: #14181f } td, th { border-color: #39424e }
       img { background: #fff; border-radius: .4rem } .accepted { color: #6fdca4 } .refused { color: #ff9d92 } }
"""


def confusion_figure(scores: Scores) -> bytes:
    """Draw the confusion matrix, counts with the share of each true emotion as colour; return a PNG."""
    counts = np.array(scores.confusion)
    figure = Figure(figsize=(5, 4.4))
    axes = figure.subplots()
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    display = ConfusionMatrixDisplay(shares, display_labels=list(EMOTIONS))
    display.plot(ax=axes, cmap="Blues", colorbar=False, values_format=".2f", im_kw={"vmin": 0, "vmax": 1})
    axes.set(xlabel="predicted", ylabel="true", title=f"{scores.num_pictures:,} test faces, shares of each row")
    return _png(figure)


def learning_curve_figure(history: list[dict[str, float]]) -> bytes:
    """Draw loss and accuracy over the epochs; return a PNG."""
    epochs = [record["epoch"] for record in history]
    figure = Figure(figsize=(8, 3))
    left, right = figure.subplots(1, 2)
    for name in ("train/loss", "val/loss"):
        left.plot(epochs, [record[name] for record in history], label=name)
    for name in ("val/accuracy", "val/macro_f1"):
        right.plot(epochs, [record[name] for record in history], label=name)
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.legend()
        axes.grid(alpha=0.3)
    return _png(figure)


def reliability_figure(answers: Answers) -> bytes:
    """Draw how often answers of each confidence are right, and how many there are; return a PNG."""
    confidence = answers.probabilities.max(axis=1)
    edges = np.linspace(0, 1, NUM_CALIBRATION_BINS + 1)
    bins = np.clip(np.digitize(confidence, edges) - 1, 0, NUM_CALIBRATION_BINS - 1)
    counts = np.bincount(bins, minlength=NUM_CALIBRATION_BINS)
    right = np.bincount(bins, weights=answers.is_right, minlength=NUM_CALIBRATION_BINS) / np.maximum(1, counts)
    middles = (edges[:-1] + edges[1:]) / 2
    figure = Figure(figsize=(8, 3))
    left, lower = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color="grey", linestyle="--")
    left.plot(middles[counts > 0], right[counts > 0], marker="o")
    left.set(xlabel="confidence", ylabel="share of right answers", xlim=(0, 1), ylim=(0, 1))
    lower.bar(middles, counts, width=1 / NUM_CALIBRATION_BINS)
    lower.set(xlabel="confidence", ylabel="answers", xlim=(0, 1))
    return _png(figure)


def mistakes_sheet(answers: Answers, split: Split) -> tuple[bytes, list[str]]:
    """Lay out the most confident mistakes; return a WebP and a caption for each picture."""
    wrong = np.flatnonzero(~answers.is_right)
    confidence = answers.probabilities.max(axis=1)
    worst = wrong[np.argsort(-confidence[wrong])][:_NUM_MISTAKES]
    captions = [
        f"{EMOTIONS[answers.class_indices[i]]} taken for {EMOTIONS[answers.probabilities[i].argmax()]} "
        f"({confidence[i]:.2f})"
        for i in worst
    ]
    return contact_sheet(split.pixels[worst]), captions


def write_report(
    report_dir: Path, manifest: Manifest, split: Split, answers: Answers, scores: Scores, decision: Decision
) -> dict[str, bytes]:
    """Write `report.html`, `predictions.parquet` and `scores.json` (last) into `report_dir`.

    Returns:
        The pictures of the report by name, for the asset's metadata.
    """
    mistakes, captions = mistakes_sheet(answers, split)
    pictures = {"confusion": confusion_figure(scores), "reliability": reliability_figure(answers), "mistakes": mistakes}
    if manifest.training["history"]:
        pictures["learning_curves"] = learning_curve_figure(manifest.training["history"])
    write_atomically(report_dir / "report.html", _page(manifest, scores, decision, pictures, captions))
    table = pd.DataFrame(answers.probabilities, columns=[f"p_{emotion}" for emotion in EMOTIONS])
    table.insert(0, "content_hash", list(split.content_hashes))
    table.insert(1, "true_emotion", [EMOTIONS[index] for index in answers.class_indices])
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    write_atomically(report_dir / "predictions.parquet", buffer.getvalue())
    record = {"schema_version": 1, "version": manifest.version, "test": asdict(scores), "gate": decision.as_record()}
    write_json(report_dir / "scores.json", record)
    return pictures


def read_decision(report_dir: Path) -> dict[str, Any]:
    """Return the gate's record of a written report."""
    record: dict[str, Any] = json.loads((report_dir / "scores.json").read_text())
    gate: dict[str, Any] = record["gate"]
    return gate


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80, bbox_inches="tight")
    return buffer.getvalue()


def _page(
    manifest: Manifest, scores: Scores, decision: Decision, pictures: dict[str, bytes], captions: list[str]
) -> str:
    def picture(name: str, text: str) -> str:
        if name not in pictures:
            return ""
        kind = "webp" if pictures[name][:4] == b"RIFF" else "png"
        data = base64.b64encode(pictures[name]).decode()
        return f'<img alt="{html.escape(text)}" src="data:image/{kind};base64,{data}">'

    verdict = "accepted" if decision.is_accepted else "refused"
    rival = decision.champion or "the floors for a first model"
    reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in decision.reasons)
    rows = "".join(
        f"<tr><td>{emotion}</td><td>{scores.precision[emotion]:.3f}</td><td>{scores.recall[emotion]:.3f}</td>"
        f"<td>{scores.f1[emotion]:.3f}</td><td>{scores.support[emotion]:,}</td></tr>"
        for emotion in EMOTIONS
    )
    listed = "".join(f"<li>{html.escape(caption)}</li>" for caption in captions)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Evaluation of {manifest.version}</title><style>{_STYLE}</style></head><body>
<h1>Evaluation of {manifest.version}</h1>
<p><strong class="{verdict}">{verdict.capitalize()}</strong>, compared with {rival}:</p>
<ul>{reasons}</ul>
<table><tr><th>on {scores.num_pictures:,} test faces</th><th>value</th></tr>
<tr><td>accuracy</td><td>{scores.accuracy:.4f}</td></tr><tr><td>macro-F1</td><td>{scores.macro_f1:.4f}</td></tr>
<tr><td>log loss</td><td>{scores.log_loss:.4f}</td></tr>
<tr><td>expected calibration error</td><td>{scores.calibration_error:.4f}</td></tr></table>
<table><tr><th>emotion</th><th>precision</th><th>recall</th><th>F1</th><th>faces</th></tr>{rows}</table>
<h2>Confusion</h2>{picture("confusion", "confusion matrix")}
<h2>Are the probabilities right?</h2>{picture("reliability", "reliability diagram")}
<h2>Learning curves</h2>{picture("learning_curves", "learning curves")}
<h2>The most confident mistakes</h2>{picture("mistakes", "faces that were taken for another emotion")}<ol>{listed}</ol>
<p>Data {manifest.data_fingerprint[:12]}, temperature {manifest.temperature}, made {manifest.created_at}.</p>
</body></html>
"""
