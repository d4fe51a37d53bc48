from __future__ import annotations

import io
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
from PIL import Image

from emotion_assets.steps.evaluation import figures
from emotion_assets.steps.evaluation.scores import compute_scores
from emotion_assets.steps.splits.splits import Split
from tests.steps.evaluation.helpers import simulate


def test_charts_are_readable_images() -> None:
    """Each is an SVG small enough for Dagster's event log, also without images of some emotions."""
    predictions = simulate(0.7, count=100)
    happy = replace(predictions, class_indices=np.full(100, 2))
    for chart in (
        figures.confusion_figure(compute_scores(happy)),
        figures.reliability_figure(predictions, 0.8),
        figures.precision_recall_figure(happy),
        figures.risk_coverage_figure(predictions),
    ):
        assert ET.fromstring(chart).tag.endswith("svg")
        assert len(chart) < 100_000


def test_mistakes_are_shown_by_confidence() -> None:
    """The caption names label, prediction and confidence; a model without mistakes has an empty sheet."""
    predictions = simulate(0.5, count=20, confidence=0.8)
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 255, (20, 64, 64)).astype(np.uint8), predictions.class_indices, ("",) * 20)
    predictions.probabilities[~predictions.is_correct] *= 0.9
    worst = int(np.flatnonzero(~predictions.is_correct)[-1])
    predictions.probabilities[worst] = np.eye(5)[(predictions.class_indices[worst] + 1) % 5]

    sheet, captions = figures.mistakes_sheet(predictions, split)
    _, uncertain = figures.uncertain_sheet(predictions, split)
    perfect = replace(predictions, class_indices=predictions.probabilities.argmax(axis=1))

    assert Image.open(io.BytesIO(sheet)).format == "WEBP"
    assert len(captions) == (~predictions.is_correct).sum()
    assert captions[0].endswith("(1.00)")
    assert ", predicted " in captions[0]
    assert len(uncertain) == 20
    assert figures.mistakes_sheet(perfect, split)[1] == []
