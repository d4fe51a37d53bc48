"""The model card: what a stranger must know before using a model, in Markdown beside its bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from emotion_assets.core.bundle import runtime_precision
from emotion_assets.core.files import write_atomically
from emotion_assets.steps.evaluation.label_audit import read_audit
from emotion_assets.steps.evaluation.report import Evaluation, render
from emotion_assets.steps.registry.registry import CARD_NAME

_NUM_WORST: Final = 3


def write_model_card(bundle_dir: Path, evaluation: Evaluation, reports_dir: Path) -> Path:
    """Write `model_card.md` into the bundle's folder and return its path.

    Args:
        bundle_dir: the model's bundle.
        evaluation: what was found out about it.
        reports_dir: holds the latest label audit, if there was one on the same data.
    """
    scores = evaluation.scores
    worst = sorted(evaluation.slices, key=lambda part: part.accuracy)[:_NUM_WORST]
    text = render(
        "card.md.jinja",
        evaluation=evaluation,
        manifest=evaluation.manifest,
        runtime_precision=runtime_precision(evaluation.manifest),
        decision=evaluation.decision,
        scores=scores,
        worst_slices=[f"{part.family}, {part.name} ({part.accuracy:.3f})" for part in worst],
        audit=read_audit(reports_dir, evaluation.manifest.data_fingerprint),
    )
    path = bundle_dir / CARD_NAME
    write_atomically(path, text)
    return path
