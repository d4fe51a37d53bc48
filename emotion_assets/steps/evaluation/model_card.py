"""The model card: intended use, data, scores and limits of a model, as Markdown in its bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from emotion_assets.core.bundle import runtime_precision
from emotion_assets.core.files import write_atomically
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.evaluation.label_audit import read_audit
from emotion_assets.steps.evaluation.report import Evaluation, render
from emotion_assets.steps.registry.registry import CARD_NAME

_NUM_WORST_SLICES: Final = 3


def write_model_card(paths: DataPaths, evaluation: Evaluation) -> Path:
    """Write `model_card.md` into the model's bundle, with the label audit of its data if there was one."""
    manifest = evaluation.manifest
    worst = sorted(evaluation.slices, key=lambda found: found.accuracy)[:_NUM_WORST_SLICES]
    text = render(
        "model_card.md.jinja",
        evaluation,
        runtime_precision=runtime_precision(manifest),
        worst_slices=[f"{found.family}, {found.name} ({found.accuracy:.3f})" for found in worst],
        audit=read_audit(paths, manifest.data_fingerprint),
    )
    path = paths.models / manifest.version / CARD_NAME
    write_atomically(path, text)
    return path
