from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from emotion_assets.core.bundle import read_manifest
from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.errors import BundleMismatchError, UnusableDataError
from emotion_assets.core.files import file_sha256
from emotion_assets.core.layout import DataPaths
from emotion_assets.demo.faces import draw_face
from emotion_assets.steps.evaluation.candidate import evaluate_candidate
from emotion_assets.steps.ingest.export import TABLE_NAME, read_catalogue
from emotion_assets.steps.registry.registry import Decision, ModelState, Registry, read_decision
from emotion_assets.steps.splits.splits import hash_starts, read_assignments, read_split
from tests.bundles import change_manifest
from tests.steps.evaluation.helpers import LENIENT, STRICT, add_bundle, version

ACCEPTED = Decision(candidate=version(1), is_accepted=True, reasons=["because"])


def test_a_first_model_is_accepted_with_a_report(paths: DataPaths) -> None:
    """Page, JSON and table are written; the accuracy follows from the stored predictions."""
    result = evaluate_candidate(paths, LENIENT)

    predictions = pd.read_parquet(result.report_dir / "predictions.parquet")
    predicted = predictions[[f"p_{emotion}" for emotion in EMOTIONS]].to_numpy().argmax(axis=1)
    is_correct = np.array(EMOTIONS)[predicted] == predictions["true_emotion"]
    record = json.loads((result.report_dir / "scores.json").read_text())

    assert list(predictions["content_hash"]) == list(read_split(paths.splits, "test").content_hashes)
    assert is_correct.mean() == pytest.approx(record["test"]["accuracy"])
    assert Registry(paths.models).champion() == version(1)
    assert read_decision(result.report_dir) == result.decision
    assert result.decision.latency_ms
    assert 0.01 < result.decision.latency_ms < 1000
    assert f"{result.scores.accuracy:.4f}" in (result.report_dir / "report.html").read_text()


def test_a_candidate_is_compared_with_the_champion(paths: DataPaths) -> None:
    """On the present test images, three of which are new, and beside its scores for external images."""
    first = evaluate_candidate(paths, LENIENT)
    predictions = first.report_dir / "predictions.parquet"
    pd.read_parquet(predictions).iloc[3:].to_parquet(predictions)
    add_bundle(paths.models, paths.models / version(1), 2)
    folder = paths.external / "Happy"
    folder.mkdir(parents=True)
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(draw_face("happy", np.random.default_rng(number)))

    result = evaluate_candidate(paths, LENIENT)

    assert (result.decision.champion, result.decision.accuracy_difference, result.decision.p_value) == (
        version(1),
        0,
        1,
    )
    assert result.evaluation.champion_scores == result.scores
    assert result.evaluation.test_set_change
    assert (result.evaluation.test_set_change.num_new, result.evaluation.test_set_change.num_removed) == (3, 0)
    assert result.evaluation.external
    assert result.evaluation.external.num_images == 5


def test_the_champion_keeps_its_decision_when_it_is_evaluated_again(paths: DataPaths) -> None:
    """It is not compared with itself, records nothing, and keeps its force reason and its first test images."""
    strict = replace(LENIENT, min_skill=1.1)

    first = evaluate_candidate(paths, strict, force_reason="the only one there is")
    predictions = first.report_dir / "predictions.parquet"
    pd.read_parquet(predictions).head(3).to_parquet(predictions)
    again = [evaluate_candidate(paths, gate) for gate in (strict, LENIENT)]

    assert [result.decision for result in again] == [first.decision] * 2
    assert len(Registry(paths.models).history()) == 1
    assert "the only one there is" in (paths.models / version(1) / "model_card.md").read_text()
    assert len(pd.read_parquet(predictions)) == 3
    assert again[1].evaluation.champion_scores is None
    assert "<td>champion" not in (first.report_dir / "report.html").read_text()


def test_what_a_killed_evaluation_left_is_removed(paths: DataPaths) -> None:
    """Unfinished files of the report, of the model card and of the pointer to the champion."""
    version = Registry(paths.models).candidate()
    report_dir = paths.evaluation_report(version)
    report_dir.mkdir(parents=True)
    left = [report_dir / ".scores.json.1.tmp", paths.models / version / ".model_card.md.1.tmp"]
    left += [paths.models / ".champion.json.1.tmp"]
    for path in left:
        path.write_bytes(b"torn")

    evaluate_candidate(paths)

    assert not [path for path in left if path.exists()]


def test_a_damaged_champion_can_only_be_replaced_by_force(paths: DataPaths) -> None:
    """Nothing can be compared with it, and it must not block every later model permanently."""
    registry = Registry(paths.models)
    registry.record(ACCEPTED)
    add_bundle(paths.models, paths.models / version(1), 2)
    (paths.models / version(1) / "model.onnx").write_bytes(b"x")

    with pytest.raises(BundleMismatchError, match="force_reason"):
        evaluate_candidate(paths, LENIENT)
    assert registry.champion() == version(1)
    decision = evaluate_candidate(paths, LENIENT, force_reason="the disk failed").decision

    assert registry.champion() == version(2)
    assert decision.force_reason == "the disk failed"
    assert decision.champion == version(1)
    assert "damaged" in decision.reasons[0]


def test_a_champion_of_another_size_is_not_called_damaged(paths: DataPaths) -> None:
    """As after IMAGE_SIZE_PX was raised; the decision says so for ever."""
    registry = Registry(paths.models)
    registry.record(ACCEPTED)
    add_bundle(paths.models, paths.models / version(1), 2)
    change_manifest(paths.models / version(1), image_size_px=32)

    decision = evaluate_candidate(paths, LENIENT, force_reason="larger images").decision

    assert decision.is_accepted
    assert "is for 32 px; this code is for 64 px" in decision.reasons[0]
    assert "damaged" not in decision.reasons[0]


def test_a_candidate_that_fails_its_self_test_is_rejected(paths: DataPaths) -> None:
    """Such as one whose manifest records the golden prediction of another model."""
    change_manifest(paths.models / version(1), golden_prediction=[1.0, 0.0, 0.0, 0.0, 0.0])

    decision = evaluate_candidate(paths, LENIENT).decision

    assert not decision.is_accepted
    assert decision.reasons[0].startswith("The self-test failed: ")
    assert Registry(paths.models).champion() is None


def test_a_rolled_back_model_is_only_accepted_by_force(paths: DataPaths) -> None:
    """Evaluating it again rejects it; a person may force it with a reason, which is recorded."""
    registry = Registry(paths.models)
    registry.record(ACCEPTED)
    registry.record(replace(ACCEPTED, candidate=add_bundle(paths.models, paths.models / version(1), 2)))
    registry.roll_back(version(1))

    result = evaluate_candidate(paths, LENIENT)
    rejected = result.decision
    assert not rejected.is_accepted
    assert not result.is_new
    assert len(rejected.reasons) == 1
    assert "rolled back" in rejected.reasons[0]
    assert registry.state(version(2)) == ModelState.ROLLED_BACK
    forced = evaluate_candidate(paths, LENIENT, force_reason="complaints were about the camera").decision

    assert forced.is_accepted
    assert registry.champion() == version(2)
    assert registry.history()[-1]["force_reason"] == "complaints were about the camera"


def test_force_keeps_the_reasons_of_the_gate(paths: DataPaths) -> None:
    """A forced model is accepted, the gate's reasons stay beside the force reason, and a blank one is rejected."""
    first, again = evaluate_candidate(paths, STRICT), evaluate_candidate(paths, STRICT)
    assert not first.decision.is_accepted
    assert (first.is_new, again.is_new) == (True, False)
    assert Registry(paths.models).champion() is None
    with pytest.raises(UnusableDataError, match="blank"):
        evaluate_candidate(paths, STRICT, force_reason="  ")
    result = evaluate_candidate(paths, STRICT, force_reason=" a demonstration ")

    assert Registry(paths.models).champion() == version(1)
    assert result.decision.force_reason == "a demonstration"
    assert any("below the minimum" in reason for reason in result.decision.reasons)
    page = (result.report_dir / "report.html").read_text()
    assert "Forced" in page
    assert "a demonstration" in page


def test_a_model_that_the_gate_accepts_is_not_forced(paths: DataPaths) -> None:
    """A reason that was not needed is not recorded."""
    assert evaluate_candidate(paths, LENIENT, force_reason="to be sure").decision.force_reason is None


def test_other_classes_are_only_accepted_by_force(paths: DataPaths) -> None:
    """Scores for other classes cannot be compared."""
    Registry(paths.models).record(ACCEPTED)
    add_bundle(paths.models, paths.models / version(1), 2)
    change_manifest(paths.models / version(1), emotions=["calm", *EMOTIONS[1:]])

    decision = evaluate_candidate(paths, LENIENT).decision

    assert not decision.is_accepted
    assert "for the classes calm, fear" in decision.reasons[0]


def test_the_summary_has_everything_that_dagster_shows(paths: DataPaths) -> None:
    """Scores, decision, intervals, slices, charts, report and model card; every file exists."""
    summary = evaluate_candidate(paths, STRICT, force_reason="a demonstration").summary()

    values = asdict(summary)["values"]
    assert values["champion"] == values["version"] == version(1)
    assert values["force_reason"] == "a demonstration"
    assert "test/recall_fear" in values
    assert "below the minimum" in summary.lists["reasons"][0]
    assert {"intervals", "by_emotion", "slices"} == set(summary.tables)
    assert all(rows for rows in summary.tables.values())
    assert [row for row in summary.tables["intervals"] if row["low"] >= row["high"]] == []
    assert {"confusion", "reliability", "mistakes", "learning_curves"} <= set(summary.images)
    assert all(path.is_file() for path in [*summary.pages.values(), *summary.files.values()])


def train_champion_on(paths: DataPaths, content_hashes: Iterable[str]) -> None:
    """Change the training images of the first model, and accept it."""
    add_bundle(paths.models, paths.models / version(1), 2)
    change_training_images(paths.models / version(1), content_hashes)
    Registry(paths.models).record(ACCEPTED)


def change_training_images(bundle_dir: Path, content_hashes: Iterable[str]) -> None:
    path = bundle_dir / "train_images.npy"
    np.save(path, hash_starts(content_hashes))
    change_manifest(bundle_dir, files=read_manifest(bundle_dir).files | {path.name: file_sha256(path)})


def change_catalogue(paths: DataPaths, table: pd.DataFrame) -> None:
    paths.catalogue.unlink()
    paths.catalogue.mkdir()
    table.to_parquet(paths.catalogue / TABLE_NAME)


def test_the_champion_is_not_scored_on_its_training_images(paths: DataPaths) -> None:
    """Which move to the test split when subjects are named."""
    test_images = read_split(paths.splits, "test").content_hashes
    train_champion_on(paths, test_images[:3])

    result = evaluate_candidate(paths, LENIENT)

    assert result.decision.is_accepted
    assert result.decision.reasons[1] == "Compared without 3 test images that the champion knows from its training."
    assert result.evaluation.champion_scores
    assert result.evaluation.champion_scores.num_images == len(test_images) - 3


def test_a_champion_that_was_trained_on_all_test_images_is_not_compared(paths: DataPaths) -> None:
    train_champion_on(paths, read_split(paths.splits, "test").content_hashes)

    result = evaluate_candidate(paths, LENIENT)

    assert not result.decision.is_accepted
    assert "knows 20 of 20 test images, or their subjects, from its training" in result.decision.reasons[0]
    assert result.evaluation.champion_scores is None
    assert "compared with" not in (result.report_dir / "report.html").read_text()


def test_a_few_test_images_decide_nothing(paths: DataPaths) -> None:
    """If the champion knows most of them, the others could not show that the candidate is far worse."""
    train_champion_on(paths, read_split(paths.splits, "test").content_hashes[:11])

    few, enough = (
        evaluate_candidate(paths, replace(LENIENT, min_images_compared=number)).decision for number in (10, 9)
    )

    assert not few.is_accepted
    assert "knows 11 of 20 test images, or their subjects, from its training; the others are too few" in few.reasons[0]
    assert enough.is_accepted


def test_training_images_are_no_test_images(paths: DataPaths) -> None:
    """After the splits changed, a model must be trained anew before it is evaluated."""
    change_training_images(paths.models / version(1), read_split(paths.splits, "test").content_hashes[:3])

    with pytest.raises(UnusableDataError, match="was trained on 3 of the 20 test images"):
        evaluate_candidate(paths, LENIENT)


def test_a_rejected_file_is_no_image_of_the_champion(paths: DataPaths) -> None:
    """A file that is too large has no hash of its content."""
    table = read_catalogue(paths.catalogue)
    rejected = {"path": "Happy/large.png", "content_hash": "size-12015239", "is_accepted": False}
    change_catalogue(paths, pd.concat([table, pd.DataFrame([rejected])]))
    train_champion_on(paths, [])

    assert evaluate_candidate(paths, LENIENT).decision.is_accepted


@pytest.mark.parametrize("column", ["subject", "near_duplicate_group"])
def test_what_both_models_know_is_compared(paths: DataPaths, column: str) -> None:
    """Such as the people of a divided recording, or images that a later one made a group with training images."""
    change_catalogue(paths, read_catalogue(paths.catalogue).assign(**{column: "anna"}))
    splits = paths.splits.resolve()
    paths.splits.unlink()
    shutil.copytree(splits, paths.splits)
    read_assignments(paths.splits).assign(is_divided=True).to_parquet(paths.splits / "assignments.parquet")
    Registry(paths.models).record(ACCEPTED)
    add_bundle(paths.models, paths.models / version(1), 2)

    result = evaluate_candidate(paths, LENIENT)

    assert result.decision.p_value == 1
    assert result.decision.reasons[1:] == []
    assert "A recording was divided" in result.card_path.read_text()


@pytest.mark.parametrize("column", ["subject", "near_duplicate_group"])
def test_the_champion_knows_whom_it_was_trained_on(paths: DataPaths, column: str) -> None:
    """Other images of a person, or of a group of copies, do not count either."""
    test_images = read_split(paths.splits, "test").content_hashes
    table = read_catalogue(paths.catalogue)
    table.loc[table["content_hash"].isin(test_images[:4]), column] = "anna"
    change_catalogue(paths, table)
    train_champion_on(paths, test_images[:1])

    decision = evaluate_candidate(paths, LENIENT).decision

    assert decision.reasons[1] == "Compared without 4 test images that the champion knows from its training."
