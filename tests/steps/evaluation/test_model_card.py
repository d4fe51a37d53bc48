from __future__ import annotations

import shutil
from pathlib import Path

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.files import write_json
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.evaluation.candidate import evaluate_candidate
from emotion_assets.steps.evaluation.model_card import write_model_card
from emotion_assets.steps.splits.splits import read_manifest, read_split
from tests.steps.evaluation.helpers import LENIENT


def test_the_card_has_scores_limits_and_legal_notes(paths: DataPaths, drawn_root: Path) -> None:
    """Scores with intervals, data, cost, prohibited uses, and the label audit of the same splits."""
    shutil.copytree(drawn_root / "raw" / "Sad", paths.external / "Sad")
    num_trained_on = int((read_split(paths.splits, "train").class_indices == EMOTIONS.index("sad")).sum())

    result = evaluate_candidate(paths, LENIENT)

    card = result.card_path.read_text()
    assert result.card_path.parent == paths.models / result.decision.candidate
    assert f"| accuracy | {result.scores.accuracy:.4f} |" in card
    assert "AI Act" in card
    assert "Accepted by the gate" in card
    assert f"{40 - num_trained_on} labelled images of another source" in card
    assert "was not audited" in card
    assert "Inference runs in float32" in card

    fingerprint = read_manifest(paths.splits)["fingerprint"]
    audit = {"fraction": 0.125, "num_images": 1600, "num_issues": 200}
    write_json(paths.reports / "label_audit" / fingerprint[:12] / "audit.json", audit)
    audited = write_model_card(paths, result.evaluation).read_text()
    assert "12.5 % of 1,600 training images are likely mislabelled (200 images" in audited
