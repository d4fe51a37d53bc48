"""Every figure of a report is recomputed here from the stored answers alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.steps.evaluation.baseline import measure_baseline
from emotion_assets.steps.evaluation.candidate import CandidateEvaluation, DataPaths, evaluate_candidate
from emotion_assets.steps.evaluation.gate import GateConfig
from emotion_assets.steps.registry.registry import CARD_NAME, Registry

LENIENT = GateConfig(min_accuracy=0, min_recall=0, max_calibration_error=1)


@dataclass
class Written:
    """A judgement of the champion-to-be and one of its equal twin, as they lie on disk."""

    judgement: CandidateEvaluation
    record: dict[str, Any]
    predictions: pd.DataFrame
    page: str
    card: str


@pytest.fixture(scope="module")
def written(drawn_root: Path, bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A report with everything in it: baseline, champion, labelled faces of another source."""
    root = tmp_path_factory.mktemp("report")
    registry = Registry(root / "models")
    shutil.copytree(bundle_dir, root / "models" / bundle_dir.name)
    for name in ("Happy", "Sad"):
        shutil.copytree(drawn_root / "raw" / name, root / "unlabelled" / name)
    (root / "unlabelled" / "Sad" / "broken.jpg").write_bytes(b"no image")
    measure_baseline(drawn_root / "splits", root / "reports", epochs=1)
    where = DataPaths(drawn_root / "splits", drawn_root / "catalogue", root / "unlabelled", root / "reports")
    evaluate_candidate(where, registry, LENIENT)
    twin = root / "models" / f"29991231-000000-{bundle_dir.name[-8:]}"
    shutil.copytree(bundle_dir, twin)
    manifest = json.loads((twin / "manifest.json").read_text()) | {"version": twin.name}
    (twin / "manifest.json").write_text(json.dumps(manifest))
    judgement = evaluate_candidate(where, registry, LENIENT)
    return Written(
        judgement,
        json.loads((judgement.report_dir / "scores.json").read_text()),
        pd.read_parquet(judgement.report_dir / "predictions.parquet"),
        (judgement.report_dir / "report.html").read_text(),
        (twin / CARD_NAME).read_text(),
    )


def answers(written: Written) -> tuple[Any, Any]:
    """The stored probabilities and the true classes."""
    probabilities = written.predictions[[f"p_{emotion}" for emotion in EMOTIONS]].to_numpy(dtype=float)
    return probabilities, np.array([EMOTIONS.index(word) for word in written.predictions["true_emotion"]])


def test_scores_follow_from_the_stored_answers(written: Written) -> None:
    """Accuracy, rates by emotion, macro-F1, log loss, calibration error and confusion, by plain counting."""
    probabilities, truth = answers(written)
    said = probabilities.argmax(axis=1)
    test = written.record["test"]
    confusion = np.zeros((5, 5), dtype=int)
    for true_index, said_index in zip(truth, said, strict=True):
        confusion[true_index, said_index] += 1
    f1 = []
    for index, emotion in enumerate(EMOTIONS):
        hits = confusion[index, index]
        assert test["recall"][emotion] == pytest.approx(hits / confusion[index].sum())
        assert test["precision"][emotion] == pytest.approx(hits / max(1, confusion[:, index].sum()))
        f1.append(2 * hits / max(1, confusion[index].sum() + confusion[:, index].sum()))
    confidence = probabilities.max(axis=1)
    error = 0.0
    for number in range(15):
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(confidence[inside].mean() - (said == truth)[inside].mean())

    assert test["confusion"] == confusion.tolist()
    assert test["accuracy"] == pytest.approx((said == truth).mean())
    assert test["macro_f1"] == pytest.approx(np.mean(f1))
    assert test["log_loss"] == pytest.approx(-np.log(probabilities[np.arange(len(truth)), truth]).mean(), rel=1e-4)
    assert test["calibration_error"] == pytest.approx(error, abs=1e-4)


def test_risk_coverage_follows_from_the_stored_answers(written: Written) -> None:
    """At each share, the accuracy of the most confident answers; at the end, that of all."""
    probabilities, truth = answers(written)
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    right = (probabilities.argmax(axis=1) == truth)[order]

    for point in written.record["risk_coverage"]:
        num = round(point["coverage"] * len(right))
        assert point["accuracy"] == pytest.approx(right[:num].mean())
    assert written.record["risk_coverage"][-1]["accuracy"] == pytest.approx(written.record["test"]["accuracy"])


def test_baselines_and_rivals_stand_beside_the_model(written: Written) -> None:
    """The majority class, the baseline CNN, the champion and the other source are scored."""
    _, truth = answers(written)
    record = written.record

    assert record["majority_scores"]["accuracy"] == pytest.approx(np.bincount(truth).max() / len(truth))
    assert record["student"]["epochs"] == 1
    assert record["champion_scores"]["accuracy"] == record["test"]["accuracy"]
    assert record["external"]["num_images"] == 80
    assert record["growth"] == {
        "num_before": len(truth),
        "num_new": 0,
        "num_gone": 0,
        "accuracy_on_known": pytest.approx(record["test"]["accuracy"]),
        "accuracy_on_new": None,
    }


def test_the_schema_is_stable(written: Written) -> None:
    """Other programs read these names."""
    assert written.record["schema_version"] == 2
    assert set(written.record) == {
        "schema_version",
        "version",
        "data_fingerprint",
        "test",
        "gate",
        "intervals",
        "champion_scores",
        "champion_intervals",
        "growth",
        "majority_scores",
        "student",
        "slices",
        "external",
        "risk_coverage",
    }
    assert written.record["gate"]["is_accepted"]
    assert written.record["gate"]["p_value"] == 1.0
    assert written.record["gate"]["latency_ms"] > 0


class Outside(HTMLParser):
    """Collects every address that a page would load or link to."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, _: str, attributes: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href")]


def test_the_page_needs_nothing_from_outside(written: Written) -> None:
    """Images are inside, links point into the page, nothing is run, and it stays small."""
    reader = Outside()
    reader.feed(written.page)

    assert all(address.startswith(("data:image/", "#")) for address in reader.addresses)
    assert "<script" not in written.page
    assert len(written.page) < 6_000_000
    assert f"{written.judgement.scores.accuracy:.4f}" in written.page
    assert "baseline CNN" in written.page


def test_images_are_small_enough_for_the_event_log(written: Written) -> None:
    """Dagster keeps them permanently."""
    import io

    for name, content in written.judgement.images.items():
        assert len(content) < 100_000, name
        Image.open(io.BytesIO(content)).load()


def test_the_card_says_what_a_stranger_must_know(written: Written) -> None:
    """Scores with intervals, limits, and what is forbidden."""
    assert f"| accuracy | {written.judgement.scores.accuracy:.4f} |" in written.card
    assert "European Union" in written.card
    assert "Accepted by the gate" in written.card
    assert "80 labelled faces of another source" in written.card
    assert "was not audited" in written.card
