"""Every figure of a report is recomputed from the stored predictions alone."""

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

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.steps.evaluation import report
from emotion_assets.steps.evaluation.baseline import measure_baseline
from emotion_assets.steps.evaluation.candidate import CandidateEvaluation, evaluate_candidate
from emotion_assets.steps.evaluation.scores import LabelledPredictions
from emotion_assets.steps.splits.splits import Split
from tests.steps.evaluation.helpers import LENIENT, add_bundle, link_data


@dataclass
class Written:
    """The report of a candidate with the same predictions as the champion, read from disk."""

    result: CandidateEvaluation
    record: dict[str, Any]
    predictions: pd.DataFrame
    page: str


@pytest.fixture(scope="module")
def written(drawn_root: Path, bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A report with everything in it: baseline, champion, labelled faces of another source."""
    paths = link_data(tmp_path_factory.mktemp("report"), drawn_root)
    for name in ("Happy", "Sad"):
        shutil.copytree(drawn_root / "raw" / name, paths.external / name)
    measure_baseline(paths, epochs=1)
    for number in (1, 2):
        add_bundle(paths.models, bundle_dir, number)
        result = evaluate_candidate(paths, LENIENT)
    return Written(
        result,
        json.loads((result.report_dir / "scores.json").read_text()),
        pd.read_parquet(result.report_dir / "predictions.parquet"),
        (result.report_dir / "report.html").read_text(),
    )


def read_predictions(written: Written) -> tuple[Any, Any]:
    """The stored probabilities and the true classes."""
    probabilities = written.predictions[[f"p_{emotion}" for emotion in EMOTIONS]].to_numpy(dtype=float)
    return probabilities, np.array([EMOTIONS.index(word) for word in written.predictions["true_emotion"]])


def test_scores_follow_from_the_stored_predictions(written: Written) -> None:
    """Accuracy, rates by emotion, macro-F1, log loss, calibration error and confusion, by plain counting."""
    probabilities, truth = read_predictions(written)
    predicted = probabilities.argmax(axis=1)
    test = written.record["test"]
    confusion = np.zeros((5, 5), dtype=int)
    for true_index, predicted_index in zip(truth, predicted, strict=True):
        confusion[true_index, predicted_index] += 1
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
            error += inside.mean() * abs(confidence[inside].mean() - (predicted == truth)[inside].mean())

    assert test["confusion"] == confusion.tolist()
    assert test["accuracy"] == pytest.approx((predicted == truth).mean())
    assert test["macro_f1"] == pytest.approx(np.mean(f1))
    assert test["log_loss"] == pytest.approx(-np.log(probabilities[np.arange(len(truth)), truth]).mean(), rel=1e-4)
    assert test["calibration_error"] == pytest.approx(error, abs=1e-4)


def test_risk_coverage_follows_from_the_stored_predictions(written: Written) -> None:
    """At each coverage, the accuracy of the most confident predictions; at the end, that of all."""
    probabilities, truth = read_predictions(written)
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    is_correct = (probabilities.argmax(axis=1) == truth)[order]

    for point in written.record["risk_coverage"]:
        num = round(point["coverage"] * len(is_correct))
        assert point["accuracy"] == pytest.approx(is_correct[:num].mean())
    assert written.record["risk_coverage"][-1]["accuracy"] == pytest.approx(written.record["test"]["accuracy"])


def test_baselines_and_champion_are_shown_beside_the_model(written: Written) -> None:
    """The majority class, the baseline CNN, the champion and the other source are scored."""
    _, truth = read_predictions(written)
    record = written.record

    assert record["majority_scores"]["accuracy"] == pytest.approx(np.bincount(truth).max() / len(truth))
    assert record["baseline"]["epochs"] == 1
    assert record["champion_scores"]["accuracy"] == record["test"]["accuracy"]
    assert record["external"]["num_images"] == 16  # the others were trained on
    assert record["test_set_change"] == {
        "num_before": len(truth),
        "num_new": 0,
        "num_removed": 0,
        "accuracy_on_known": pytest.approx(record["test"]["accuracy"]),
        "accuracy_on_new": None,
    }


def test_the_schema_is_stable(written: Written) -> None:
    """Other programs read these names."""
    assert written.record["schema_version"] == 3
    assert set(written.record) == {
        "schema_version",
        "version",
        "data_fingerprint",
        "test",
        "gate",
        "intervals",
        "champion_scores",
        "champion_intervals",
        "test_set_change",
        "majority_scores",
        "baseline",
        "slices",
        "external",
        "subjects",
        "is_divided",
        "risk_coverage",
    }
    assert written.record["gate"]["is_accepted"]
    assert written.record["gate"]["p_value"] == 1.0
    assert written.record["gate"]["latency_ms"] > 0


class AddressReader(HTMLParser):
    """Collects every address that a page would load or link to."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, _: str, attributes: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href")]


def test_the_page_is_self_contained(written: Written) -> None:
    """Images are embedded, links point into the page, there is no script, and it stays small."""
    reader = AddressReader()
    reader.feed(written.page)

    assert all(address.startswith(("data:image/", "#")) for address in reader.addresses)
    assert "<script" not in written.page
    assert len(written.page) < 6_000_000
    assert f"{written.result.scores.accuracy:.4f}" in written.page
    assert "baseline CNN" in written.page


def test_images_are_small_enough_for_the_event_log(written: Written) -> None:
    """Dagster keeps them permanently."""
    for name, content in written.result.images.items():
        assert len(content) < 100_000, name


def test_the_champion_is_scored_on_new_test_images_too(tmp_path: Path) -> None:
    """Images added since its acceptance are separated from those on which it was accepted; training images are none."""
    pd.DataFrame({"content_hash": ["a", "b", "c"]}).to_parquet(tmp_path / "predictions.parquet")
    split = Split(np.zeros((4, 64, 64), dtype=np.uint8), np.zeros(4, dtype=np.int64), ("a", "b", "d", "e"))
    champion = LabelledPredictions("x", np.eye(5, dtype=np.float32)[[0, 1, 0, 1]], split.class_indices)

    is_unseen = np.array([True, True, False, True])
    change = report.measure_test_set_change(tmp_path, split, champion, is_unseen)

    assert change == report.TestSetChange(
        num_before=3, num_new=2, num_removed=1, accuracy_on_known=0.5, accuracy_on_new=0.0
    )
    assert report.measure_test_set_change(tmp_path / "none", split, champion, is_unseen) is None
