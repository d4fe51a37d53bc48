"""Judge the newest model: score it and the champion on the same test faces, decide, report, record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from emotion_assets.core.bundle import read_manifest
from emotion_assets.core.classifier import Classifier
from emotion_assets.core.files import locked
from emotion_assets.steps.data.split import read_split
from emotion_assets.steps.evaluation.compare import GateConfig, decide
from emotion_assets.steps.evaluation.decision import Decision
from emotion_assets.steps.evaluation.evaluate import Scores, answer, score
from emotion_assets.steps.evaluation.registry import Registry
from emotion_assets.steps.evaluation.report import write_report

_NUM_THREADS: Final = 2


@dataclass(frozen=True, slots=True)
class Judgement:
    """The scores, the decision, and where the report lies."""

    scores: Scores
    champion_scores: Scores | None
    decision: Decision
    report_dir: Path
    pictures: dict[str, bytes]


def judge_candidate(
    splits_dir: Path, registry: Registry, reports_dir: Path, gate: GateConfig | None = None
) -> Judgement:
    """Compare the newest bundle with the accepted one on the test split, and accept it if it is not worse.

    Raises:
        MissingModelError: nothing was trained yet.
        BundleMismatchError: a bundle is damaged.
        UnusableDataError: there are no splits.
    """
    # Two judgements at once could lose a decision of the history.
    with locked(registry.models_dir / ".registry.lock"):
        return _judge(splits_dir, registry, reports_dir, gate)


def _judge(splits_dir: Path, registry: Registry, reports_dir: Path, gate: GateConfig | None) -> Judgement:
    split = read_split(splits_dir, "test")
    candidate_dir = registry.models_dir / registry.candidate()
    champion_version = registry.champion()
    answers = answer(Classifier(candidate_dir, _NUM_THREADS), split)
    scores = score(answers)
    champion = champion_scores = None
    if champion_version is not None:
        champion = answer(Classifier(registry.models_dir / champion_version, _NUM_THREADS), split)
        champion_scores = score(champion)
    decision = decide(answers, scores, champion, champion_scores, gate)
    report_dir = reports_dir / "evaluation" / answers.version
    pictures = write_report(report_dir, read_manifest(candidate_dir), split, answers, scores, decision)
    if champion_version != answers.version:
        registry.record(decision)
    return Judgement(scores, champion_scores, decision, report_dir, pictures)
