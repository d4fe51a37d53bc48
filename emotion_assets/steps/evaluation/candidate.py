"""Judge the newest model: score it and the champion on the same test faces, decide, report, record."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from emotion_assets.core.bundle import read_manifest
from emotion_assets.core.classifier import Classifier, golden_input
from emotion_assets.core.errors import BundleMismatchError, UnusableDataError
from emotion_assets.steps.evaluation.baseline import read_baseline
from emotion_assets.steps.evaluation.external import read_external
from emotion_assets.steps.evaluation.gate import GateConfig, decide
from emotion_assets.steps.evaluation.intervals import intervals
from emotion_assets.steps.evaluation.model_card import write_model_card
from emotion_assets.steps.evaluation.report import PREDICTIONS_NAME, Evaluation, TestSetChange, write_report
from emotion_assets.steps.evaluation.scores import LabelledPredictions, Scores, answer, majority_baseline, score
from emotion_assets.steps.evaluation.slices import slices
from emotion_assets.steps.registry.decision import Decision
from emotion_assets.steps.registry.registry import Registry
from emotion_assets.steps.splits.splits import Split, read_split

_NUM_THREADS: Final = 2
_NUM_LATENCY_RUNS: Final = 30


@dataclass(frozen=True, slots=True)
class DataPaths:
    """The folders that a judgement reads and writes."""

    splits_dir: Path
    catalogue_dir: Path
    external_dir: Path
    reports_dir: Path


@dataclass(frozen=True, slots=True)
class CandidateEvaluation:
    """What was found, what was decided, and where the report lies."""

    evaluation: Evaluation
    report_dir: Path
    images: dict[str, bytes]

    @property
    def scores(self) -> Scores:
        """The candidate's scores on the test split."""
        return self.evaluation.scores

    @property
    def decision(self) -> Decision:
        """The gate's decision."""
        return self.evaluation.decision


def evaluate_candidate(
    where: DataPaths,
    registry: Registry,
    gate: GateConfig | None = None,
    *,
    force_reason: str | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> CandidateEvaluation:
    """Compare the newest bundle with the accepted one on the test split, and accept it if it is not worse.

    Args:
        where: the folders.
        registry: the bundles and the pointer to the accepted one.
        gate: the rules.
        force_reason: accepts the candidate whatever the gate says, and is recorded with what it said.
        log: gets a line a step.

    Raises:
        MissingModelError: nothing was trained yet.
        BundleMismatchError: a bundle is damaged.
        UnusableDataError: there are no splits, or the reason to force is blank.
    """
    if force_reason is not None and not force_reason.strip():
        raise UnusableDataError(
            "force_reason is blank. Say why the gate's rejection should not count, or leave it out."
        )
    # Two judgements at once could lose a decision of the history.
    with registry.locked():
        return _judge(where, registry, gate, force_reason, log)


def _judge(
    where: DataPaths,
    registry: Registry,
    gate: GateConfig | None,
    force_reason: str | None,
    log: Callable[[str], None],
) -> CandidateEvaluation:
    split = read_split(where.splits_dir, "test")
    candidate_dir = registry.models_dir / registry.candidate()
    classifier = Classifier(candidate_dir, _NUM_THREADS)
    log(f"Scoring {classifier.version} on {len(split.pixels):,} test faces")
    answers = answer(classifier, split, with_maps=True)
    scores = score(answers)
    champion = champion_scores = test_set_change = None
    champion_version = registry.champion()
    if champion_version is not None:
        log(f"Scoring the champion {champion_version} on the same faces")
        champion = _champion(registry.models_dir / champion_version, split, force_reason, log)
        champion_scores = score(champion) if champion else None
        test_set_change = (
            _test_set_change(where.reports_dir / "evaluation" / champion_version, split, champion) if champion else None
        )
    latency_ms = measure_latency_ms(candidate_dir)
    decision = decide(answers, scores, champion, champion_scores, gate, latency_ms=latency_ms)
    accepted = registry.acceptance(answers.version) if answers.version == champion_version else None
    if accepted is not None:
        # It serves: compared with itself it could only be rejected, or lose the reason for which a person accepted it.
        decision = accepted
    elif answers.version in registry.rolled_back():
        rejection = (
            f"{answers.version} was rolled back by a person. Train with another seed or other data, or force it with a "
            "reason."
        )
        decision = dataclasses.replace(decision, is_accepted=False, reasons=[rejection, *decision.reasons])
    if champion is None and champion_version is not None:
        # Only a person brings it this far, so the reason is kept whatever the floors say.
        nothing = f"The champion {champion_version} is damaged, so nothing was compared with it."
        reasons = [nothing, *([] if decision.is_accepted else decision.reasons)]
        decision = dataclasses.replace(decision, champion=champion_version, is_accepted=False, reasons=reasons)
    if not decision.is_accepted and force_reason is not None:
        decision = dataclasses.replace(decision, is_accepted=True, force_reason=force_reason.strip())
    other = read_external(where.external_dir)
    # Its own scores are no comparison, and the decision that let it in names the champion of that day.
    is_compared = champion is not None and accepted is None
    evaluation = Evaluation(
        manifest=read_manifest(candidate_dir),
        scores=scores,
        intervals=intervals(answers),
        decision=decision,
        champion_scores=champion_scores if is_compared else None,
        champion_intervals=intervals(champion) if champion and is_compared else None,
        test_set_change=test_set_change,
        majority_scores=score(majority_baseline(answers)),
        baseline=read_baseline(where.reports_dir, split),
        slices=slices(answers, split, where.catalogue_dir),
        external=score(answer(classifier, other)) if len(other.pixels) else None,
    )
    report_dir = where.reports_dir / "evaluation" / answers.version
    log("Writing the report")
    images = write_report(report_dir, evaluation, split, answers, keeps_predictions=accepted is not None)
    write_model_card(candidate_dir, evaluation, where.reports_dir)
    if champion_version != answers.version:
        registry.record(decision)
    return CandidateEvaluation(evaluation, report_dir, images)


def _champion(
    bundle_dir: Path, split: Split, force_reason: str | None, log: Callable[[str], None]
) -> LabelledPredictions | None:
    """Let the champion answer; None if its bundle cannot be used and a person wants the candidate whatever it says."""
    try:
        return answer(Classifier(bundle_dir, _NUM_THREADS), split)
    except BundleMismatchError as error:
        if force_reason is None:
            raise BundleMismatchError(
                f"The champion cannot be compared with: {error} Or accept the newest model without a comparison: give "
                "evaluation_report a force_reason."
            ) from error
        log(f"The champion cannot be compared with: {error}")
        return None


def measure_latency_ms(bundle_dir: Path) -> float:
    """Return the median time in milliseconds that the model takes for one face on one thread."""
    classifier, face = Classifier(bundle_dir), golden_input()
    seconds = []
    for _ in range(_NUM_LATENCY_RUNS):
        started = time.perf_counter()
        classifier.predict(face)
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)


def _test_set_change(report_dir: Path, split: Split, champion: LabelledPredictions) -> TestSetChange | None:
    """Hold today's test faces against those on which the champion was judged when it was accepted."""
    path = report_dir / PREDICTIONS_NAME
    if not path.exists():
        return None
    before = set(pd.read_parquet(path, columns=["content_hash"])["content_hash"])
    is_known = np.array([content_hash in before for content_hash in split.content_hashes], dtype=np.bool_)
    right = champion.is_right
    return TestSetChange(
        num_before=len(before),
        num_new=int((~is_known).sum()),
        num_gone=len(before) - int(is_known.sum()),
        accuracy_on_known=float(right[is_known].mean()) if is_known.any() else None,
        accuracy_on_new=float(right[~is_known].mean()) if (~is_known).any() else None,
    )
