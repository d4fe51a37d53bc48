from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.errors import BundleMismatchError, MissingModelError, UnusableDataError
from emotion_assets.steps.evaluation.candidate import DataPaths, evaluate_candidate
from emotion_assets.steps.evaluation.gate import GateConfig, decide
from emotion_assets.steps.evaluation.report import read_decision
from emotion_assets.steps.evaluation.scores import LabelledPredictions, answer, score
from emotion_assets.steps.registry.decision import Decision
from emotion_assets.steps.registry.registry import CHAMPION_NAME, Registry
from emotion_assets.steps.splits.splits import Split, read_split


def answers_with(
    accuracy: float, *, version: str = "new", count: int = 1000, seed: int = 0, sure: float = 0.9
) -> LabelledPredictions:
    """Answers of a model that is right with probability `accuracy`, independently on each image."""
    rng = np.random.default_rng(seed)
    truth = np.arange(count) % 5
    said = np.where(rng.random(count) < accuracy, truth, (truth + rng.integers(1, 5, count)) % 5)
    probabilities = np.full((count, 5), (1 - sure) / 4, dtype=np.float32)
    probabilities[np.arange(count), said] = sure
    return LabelledPredictions(version, probabilities, truth)


LENIENT = GateConfig(min_accuracy=0, min_recall=0, max_calibration_error=1)


def where(drawn_root: Path, tmp_path: Path) -> DataPaths:
    """The drawn faces, with reports below `tmp_path`."""
    return DataPaths(drawn_root / "splits", drawn_root / "catalogue", tmp_path / "unlabelled", tmp_path / "reports")


def gate(
    candidate: LabelledPredictions, champion: LabelledPredictions | None = None, config: GateConfig | None = None
) -> Decision:
    return decide(candidate, score(candidate), champion, score(champion) if champion else None, config)


def test_scores_of_a_small_example_by_hand() -> None:
    """Four images, three right: every number is what counting gives."""
    probabilities = np.array(
        [[0.6, 0.1, 0.1, 0.1, 0.1], [0.5, 0.2, 0.1, 0.1, 0.1], [0.1, 0.1, 0.6, 0.1, 0.1], [0.1, 0.1, 0.6, 0.1, 0.1]],
        dtype=np.float32,
    )
    scores = score(LabelledPredictions("x", probabilities, np.array([0, 1, 2, 2])))

    assert scores.accuracy == 0.75
    assert scores.recall == {"angry": 1, "fear": 0, "happy": 1, "sad": 0, "surprise": 0}
    assert scores.precision["angry"] == 0.5
    assert scores.support == {"angry": 1, "fear": 1, "happy": 2, "sad": 0, "surprise": 0}
    assert scores.confusion[1] == [1, 0, 0, 0, 0]
    # Of sad and surprise there are no images, which says nothing about them.
    assert replace(scores, recall=scores.recall | {"fear": 0.5}).weakest == "fear"
    assert scores.log_loss == pytest.approx(-np.log([0.6, 0.2, 0.6, 0.6]).mean(), rel=1e-5)
    # Three answers of confidence 0.6, all right; one of 0.5, wrong.
    assert scores.calibration_error == pytest.approx((3 * 0.4 + 0.5) / 4, rel=1e-5)


def test_answer_rejects_an_empty_split(bundle_dir: Path) -> None:
    """Without images there is nothing to score."""
    from emotion_assets.core.classifier import Classifier

    empty = Split(np.empty((0, 64, 64), dtype=np.uint8), np.empty(0, dtype=np.int64), ())
    with pytest.raises(UnusableDataError, match="no image"):
        answer(Classifier(bundle_dir), empty)


def test_gate_accepts_a_first_model_above_the_floor_only() -> None:
    """Without a champion the floors decide."""
    assert gate(answers_with(0.8, sure=0.8)).is_accepted
    rejected = gate(answers_with(0.3, sure=0.3))
    assert not rejected.is_accepted
    assert "floor of 0.4" in rejected.reasons[0]


def test_gate_accepts_better_and_equal_candidates() -> None:
    """A better candidate and the same answers again both pass."""
    champion = answers_with(0.7, version="old", sure=0.7)

    better = gate(answers_with(0.85, seed=1, sure=0.8), champion)
    equal = gate(replace(champion, version="new"), champion)

    assert better.is_accepted
    assert better.accuracy_difference is not None
    assert better.accuracy_difference > 0.1
    assert equal.is_accepted
    assert equal.p_value == 1.0


def test_gate_rejects_a_worse_candidate_with_its_numbers() -> None:
    """Five points worse is rejected by the paired test, and the reason counts the faces."""
    champion = answers_with(0.8, version="old", sure=0.8)

    decision = gate(answers_with(0.72, seed=1, sure=0.7), champion)

    assert not decision.is_accepted
    assert decision.p_value is not None
    assert decision.p_value < 0.05
    assert any("McNemar" in reason for reason in decision.reasons)
    assert decision.champion == "old"


def test_gate_rejects_a_candidate_that_gave_up_an_emotion() -> None:
    """Better overall, but one class forgotten: rejected."""
    champion = answers_with(0.7, version="old", sure=0.7)
    candidate = answers_with(0.97, seed=1, sure=0.8)
    candidate.probabilities[candidate.class_indices == 1] = [0.8, 0.05, 0.05, 0.05, 0.05]

    decision = gate(candidate, champion)

    assert not decision.is_accepted
    assert any("fear" in reason for reason in decision.reasons)
    assert decision.accuracy_difference is not None
    assert decision.accuracy_difference > 0


@pytest.mark.parametrize(("num_lost", "is_accepted"), [(2, True), (3, False)])
def test_two_faces_of_a_dozen_are_chance(num_lost: int, is_accepted: bool) -> None:
    """A fall of 17 points is two faces here, and no reason to reject a model that is better otherwise; three are."""
    champion = answers_with(0.6, version="old", count=60, sure=0.7)
    candidate = answers_with(1, count=60)
    is_fear = np.flatnonzero(champion.class_indices == 1)
    champion.probabilities[is_fear] = [0.1, 0.6, 0.1, 0.1, 0.1]
    candidate.probabilities[is_fear[:num_lost]] = [0.6, 0.1, 0.1, 0.1, 0.1]

    decision = gate(candidate, champion)

    assert decision.is_accepted == is_accepted, decision.reasons


@pytest.mark.parametrize(("num_lost", "is_accepted"), [(2, True), (3, False)])
def test_two_faces_in_all_are_chance(num_lost: int, is_accepted: bool) -> None:
    """On 60 faces two are a fall of three points, and no reason to reject; three are."""
    champion = answers_with(0.8, version="old", count=60, sure=0.7)
    candidate = replace(champion, version="new", probabilities=champion.probabilities.copy())
    others = (candidate.class_indices + 1) % len(EMOTIONS)
    for emotion in range(num_lost):  # of another emotion each
        face = np.flatnonzero(champion.is_right & (champion.class_indices == emotion))[0]
        candidate.probabilities[face] = np.eye(len(EMOTIONS))[others[face]]

    decision = gate(candidate, champion)

    assert decision.accuracy_difference == pytest.approx(-num_lost / 60)
    assert decision.is_accepted == is_accepted, decision.reasons


@pytest.mark.parametrize(("num_lost", "is_accepted"), [(3, True), (4, False)])
def test_the_loss_that_is_allowed_is_allowed(num_lost: int, is_accepted: bool) -> None:
    """One point of 300 faces is three of them; as a difference of fractions it is a little more than a point."""
    champion = answers_with(0.71, version="old", count=300, sure=0.7)
    candidate = replace(champion, version="new", probabilities=champion.probabilities.copy())
    faces = np.flatnonzero(champion.is_right)[:num_lost]
    candidate.probabilities[faces] = np.eye(len(EMOTIONS))[(candidate.class_indices[faces] + 1) % len(EMOTIONS)]

    decision = gate(candidate, champion)

    assert decision.is_accepted == is_accepted, decision.reasons


def test_gate_rejects_bad_calibration() -> None:
    """Right answers with wrong certainty do not pass."""
    decision = gate(answers_with(0.6, sure=0.99))

    assert not decision.is_accepted
    assert "Calibration" in decision.reasons[0]


def test_registry_follows_decisions(bundle_dir: Path, tmp_path: Path) -> None:
    """The pointer moves with an acceptance only; every decision stays in the history."""
    import shutil

    shutil.copytree(bundle_dir, tmp_path / bundle_dir.name)
    registry = Registry(tmp_path)
    assert registry.champion() is None
    with pytest.raises(MissingModelError, match="retrain"):
        registry.require_champion()

    rejected = Decision(bundle_dir.name, None, False, ["no"], None, None, None, None)
    registry.record(rejected)
    assert registry.champion() is None
    registry.record(replace(rejected, is_accepted=True, reasons=["yes"]))

    assert registry.champion() == bundle_dir.name == registry.require_champion().name
    assert [entry["reasons"] for entry in registry.history()] == [["no"], ["yes"]]


def test_registry_ignores_incomplete_bundles(bundle_dir: Path, tmp_path: Path) -> None:
    """A folder without a manifest is not a model: its training was killed."""
    (tmp_path / "20991231-235959-deadbeef").mkdir()
    with pytest.raises(MissingModelError, match="trained_cnn"):
        Registry(tmp_path).candidate()

    assert Registry(bundle_dir.parent).candidate() == bundle_dir.name


@pytest.mark.parametrize(
    "content", ["", "{}", '{"schema_version": 1, "version": "20260101-000000-00000000", "history": []}']
)
def test_registry_rejects_a_damaged_pointer(tmp_path: Path, content: str) -> None:
    """A torn pointer, one of another schema and one that names nothing are rejected with a remedy."""
    (tmp_path / CHAMPION_NAME).write_text(content)

    with pytest.raises(BundleMismatchError, match=r"Restore|name another"):
        Registry(tmp_path).champion()


def test_judge_candidate_writes_a_report_that_agrees_with_its_predictions(
    bundle_dir: Path, drawn_root: Path, tmp_path: Path
) -> None:
    """HTML, JSON and table are written; the accuracy follows from the stored predictions; the page needs no network."""
    import shutil

    shutil.copytree(bundle_dir, tmp_path / "models" / bundle_dir.name)
    registry = Registry(tmp_path / "models")

    judgement = evaluate_candidate(where(drawn_root, tmp_path), registry, LENIENT)

    predictions = pd.read_parquet(judgement.report_dir / "predictions.parquet")
    said = predictions[[f"p_{emotion}" for emotion in EMOTIONS]].to_numpy().argmax(axis=1)
    right = np.array(EMOTIONS)[said] == predictions["true_emotion"]
    record = json.loads((judgement.report_dir / "scores.json").read_text())
    page = (judgement.report_dir / "report.html").read_text()

    assert list(predictions["content_hash"]) == list(read_split(drawn_root / "splits", "test").content_hashes)
    assert right.mean() == pytest.approx(record["test"]["accuracy"])
    assert registry.champion() == bundle_dir.name
    assert read_decision(judgement.report_dir)["is_accepted"]
    assert "<script" not in page
    assert "http://" not in page.replace('xmlns="http://www.w3.org', "")
    assert f"{judgement.scores.accuracy:.4f}" in page


def test_judging_the_champion_again_records_nothing(bundle_dir: Path, drawn_root: Path, tmp_path: Path) -> None:
    """Materializing the report twice does not lengthen the history."""
    import shutil

    shutil.copytree(bundle_dir, tmp_path / "models" / bundle_dir.name)
    registry = Registry(tmp_path / "models")

    for _ in range(2):
        evaluate_candidate(where(drawn_root, tmp_path), registry, LENIENT)

    assert len(registry.history()) == 1


def test_a_forced_champion_keeps_its_reason_when_it_is_evaluated_again(
    bundle_dir: Path, drawn_root: Path, tmp_path: Path
) -> None:
    """Held against itself it would be equal, or rejected: neither is what happened."""
    import shutil

    shutil.copytree(bundle_dir, tmp_path / "models" / bundle_dir.name)
    registry = Registry(tmp_path / "models")
    strict = replace(LENIENT, min_accuracy=1.1)
    places = where(drawn_root, tmp_path)

    first = evaluate_candidate(places, registry, strict, force_reason="the only one there is")
    predictions = places.reports_dir / "evaluation" / bundle_dir.name / "predictions.parquet"
    pd.read_parquet(predictions).head(3).to_parquet(predictions)
    again = [evaluate_candidate(places, registry, gate) for gate in (strict, LENIENT)]

    assert [judgement.decision for judgement in again] == [first.decision] * 2
    assert "the only one there is" in (tmp_path / "models" / bundle_dir.name / "model_card.md").read_text()
    assert len(pd.read_parquet(predictions)) == 3


def test_a_champion_judged_again_is_not_compared_with_itself(
    bundle_dir: Path, drawn_root: Path, tmp_path: Path
) -> None:
    """Its own scores beside it, under the name of the champion before, would be taken for a comparison."""
    import shutil

    shutil.copytree(bundle_dir, tmp_path / "models" / bundle_dir.name)
    registry = Registry(tmp_path / "models")
    evaluate_candidate(where(drawn_root, tmp_path), registry, LENIENT)

    again = evaluate_candidate(where(drawn_root, tmp_path), registry, LENIENT)

    assert again.evaluation.champion_scores is None
    assert "<td>champion" not in (again.report_dir / "report.html").read_text()


def test_a_damaged_champion_gives_way_to_a_person_only(bundle_dir: Path, drawn_root: Path, tmp_path: Path) -> None:
    """Nothing can be compared with it, and it must not block every model after it permanently."""
    import shutil

    registry, places = Registry(tmp_path / "models"), where(drawn_root, tmp_path)
    shutil.copytree(bundle_dir, registry.models_dir / bundle_dir.name)
    evaluate_candidate(places, registry, LENIENT)
    newer = registry.models_dir / "20990101-000000-00000000"
    shutil.copytree(bundle_dir, newer)
    manifest = json.loads((newer / "manifest.json").read_text()) | {"version": newer.name}
    (newer / "manifest.json").write_text(json.dumps(manifest))
    (registry.models_dir / bundle_dir.name / "model.onnx").write_bytes(b"x")

    with pytest.raises(BundleMismatchError, match="force_reason"):
        evaluate_candidate(places, registry, LENIENT)
    assert registry.champion() == bundle_dir.name
    decision = evaluate_candidate(places, registry, LENIENT, force_reason="the disk failed").decision

    assert registry.champion() == newer.name
    assert decision.force_reason == "the disk failed"
    assert decision.champion == bundle_dir.name
    assert "damaged" in decision.reasons[0]


def test_the_champion_is_judged_on_new_faces_too(tmp_path: Path) -> None:
    """Faces that came since it was accepted are told apart from those it was judged on."""
    from emotion_assets.steps.evaluation.candidate import _test_set_change
    from emotion_assets.steps.evaluation.report import TestSetChange

    before = pd.DataFrame({"content_hash": ["a", "b", "c"]})
    before.to_parquet(tmp_path / "predictions.parquet")
    split = Split(np.zeros((4, 64, 64), dtype=np.uint8), np.zeros(4, dtype=np.int64), ("a", "b", "d", "e"))
    probabilities = np.eye(5, dtype=np.float32)[[0, 1, 0, 0]]

    test_set_change = _test_set_change(tmp_path, split, LabelledPredictions("x", probabilities, split.class_indices))

    assert test_set_change == TestSetChange(
        num_before=3, num_new=2, num_gone=1, accuracy_on_known=0.5, accuracy_on_new=1.0
    )
    assert (
        _test_set_change(tmp_path / "none", split, LabelledPredictions("x", probabilities, split.class_indices)) is None
    )
