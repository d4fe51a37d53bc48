"""Evaluate the newest model: score it and the champion on the same test images, decide, report, record."""

from __future__ import annotations

import dataclasses
import logging
import statistics
import timeit
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from emotion_assets.core.bundle import read_manifest
from emotion_assets.core.classifier import Classifier, golden_input
from emotion_assets.core.errors import BundleMismatchError, UnusableDataError
from emotion_assets.core.files import remove_temporary_files
from emotion_assets.core.layout import DataPaths
from emotion_assets.core.summary import Summary
from emotion_assets.steps.evaluation.baseline import read_baseline
from emotion_assets.steps.evaluation.external import read_external
from emotion_assets.steps.evaluation.gate import GateConfig, decide
from emotion_assets.steps.evaluation.intervals import compute_intervals
from emotion_assets.steps.evaluation.model_card import write_model_card
from emotion_assets.steps.evaluation.report import REPORT_NAME, Evaluation, measure_test_set_change, write_report
from emotion_assets.steps.evaluation.scores import (
    SCORE_NAMES,
    LabelledPredictions,
    Scores,
    compute_scores,
    predict_majority,
    predict_split,
)
from emotion_assets.steps.evaluation.slices import score_slices
from emotion_assets.steps.evaluation.subjects import score_subjects
from emotion_assets.steps.ingest.export import read_contents
from emotion_assets.steps.registry.registry import Decision, ModelState, Registry
from emotion_assets.steps.splits.splits import Split, read_assignments, read_split, was_trained_on

_NUM_THREADS: Final = 2
_NUM_LATENCY_RUNS: Final = 30

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CandidateEvaluation:
    """The results of an evaluation, and where they were written."""

    evaluation: Evaluation
    report_dir: Path
    card_path: Path
    images: dict[str, bytes]
    is_new: bool
    """False if this very model was rejected or rolled back before."""

    @property
    def scores(self) -> Scores:
        """The candidate's scores on the test split."""
        return self.evaluation.scores

    @property
    def decision(self) -> Decision:
        """The decision on the candidate."""
        return self.evaluation.decision

    def summary(self) -> Summary:
        """Return decision, scores with intervals, slices, charts, report and model card."""
        scores, decision, intervals = self.scores, self.decision, self.evaluation.intervals
        return Summary(
            values={
                **scores.flatten(),
                "version": decision.candidate,
                "champion": decision.served or "none",
                "is_accepted": decision.is_accepted,
                "is_new": self.is_new,
                **({"force_reason": decision.force_reason} if decision.force_reason else {}),
                "num_test_images": scores.num_images,
                "latency_ms": round(decision.latency_ms or 0, 2),
            },
            lists={"reasons": decision.reasons},
            tables={
                "intervals": [
                    {"score": name, "low": intervals[name][0], "high": intervals[name][1]} for name in SCORE_NAMES
                ],
                "by_emotion": [
                    {
                        "emotion": emotion,
                        "precision": scores.precision[emotion],
                        "recall": scores.recall[emotion],
                        "recall low": intervals[f"recall_{emotion}"][0],
                        "recall high": intervals[f"recall_{emotion}"][1],
                        "F1": scores.f1[emotion],
                        "images": scores.support[emotion],
                    }
                    for emotion in scores.emotions
                ],
                "slices": [
                    {"slice": f"{found.family}: {found.name}", "accuracy": found.accuracy, "images": found.num_images}
                    for found in self.evaluation.slices
                ],
            },
            images=self.images,
            pages={"report": self.report_dir / REPORT_NAME},
            files={"model_card": self.card_path},
        )


def evaluate_candidate(
    paths: DataPaths, gate: GateConfig | None = None, *, force_reason: str | None = None
) -> CandidateEvaluation:
    """Compare the newest bundle with the champion on the test split, and accept it if it is not worse.

    `force_reason` accepts the candidate even if the gate rejects it; it is recorded with the gate's reasons.

    Raises:
        MissingModelError: nothing was trained yet.
        BundleMismatchError: a bundle is damaged.
        UnusableDataError: there are no splits, the candidate was trained on images that are now in the test split, or
            `force_reason` is blank.
    """
    gate = gate or GateConfig()
    if force_reason is not None and not force_reason.strip():
        raise UnusableDataError(
            "force_reason is blank. Say why the candidate should be accepted although the gate rejects it, or omit it."
        )
    registry = Registry(paths.models)
    # Locked from reading the champion to recording the decision, or concurrent evaluations could lose a decision.
    with registry.locked():
        split = read_split(paths.splits, "test")
        classifier = Classifier(paths.models / registry.candidate(), _NUM_THREADS)
        if num_known := was_trained_on(paths.models / classifier.version, split.content_hashes).sum():
            raise UnusableDataError(
                f"{classifier.version} was trained on {num_known:,} of the {len(split.pixels):,} test images: the "
                "splits have changed since. Materialize trained_cnn first."
            )
        _logger.info("Scoring the candidate %s on %d test images", classifier.version, len(split.pixels))
        candidate = predict_split(classifier, split, with_maps=True)
        is_champion = registry.champion() == candidate.version
        champion = candidate if is_champion else _predict_champion(registry, split, is_forced=force_reason is not None)
        is_unseen = _is_unseen(paths, None if is_champion else champion, candidate, split)
        # A champion keeps the decision that accepted it: compared with itself, it proves nothing.
        accepted = registry.acceptance(candidate.version) if is_champion else None
        is_new = registry.state(candidate.version) not in {ModelState.REJECTED, ModelState.ROLLED_BACK}
        decision = accepted or _decide(registry, candidate, champion, is_unseen, gate, force_reason)
        is_compared = champion is not None and not is_champion and _is_comparable(is_unseen, gate)
        evaluation = _evaluate(
            paths, classifier, split, candidate, champion, is_unseen, is_compared=is_compared, decision=decision
        )
        report_dir = paths.evaluation_report(candidate.version)
        for folder in (report_dir, paths.models / candidate.version):
            remove_temporary_files(folder)
        _logger.info("Writing the report to %s", report_dir)
        images = write_report(report_dir, evaluation, split, candidate, keep_predictions=is_champion)
        card_path = write_model_card(paths, evaluation)
        if not is_champion:
            registry.record(decision)
    return CandidateEvaluation(evaluation, report_dir, card_path, images, is_new)


def _predict_champion(registry: Registry, split: Split, *, is_forced: bool) -> LabelledPredictions | None:
    """Return the champion's predictions.

    None if there is no champion, if it has other classes, or if it is damaged and `is_forced`.
    """
    version = registry.champion()
    if version is None:
        return None
    _logger.info("Scoring the champion %s on the same images", version)
    try:
        classifier = Classifier(registry.models_dir / version, _NUM_THREADS)
        return predict_split(classifier, split) if classifier.emotions == split.emotions else None
    except BundleMismatchError as error:
        if not is_forced:
            raise BundleMismatchError(
                f"The champion cannot be scored: {error} To accept the newest model without a comparison, set "
                "force_reason of evaluation_report."
            ) from error
        _logger.warning("The champion cannot be scored: %s", error)
        return None


def _is_unseen(
    paths: DataPaths, champion: LabelledPredictions | None, candidate: LabelledPredictions, split: Split
) -> npt.NDArray[np.bool_]:
    """Return which test images are no easier for the champion, bool (image,).

    It was not trained on them, nor on their group or subject unless the candidate was, too. Images move between the
    splits if subjects are named, or a divided recording is not divided any more.
    """
    if champion is None:
        return np.ones(len(split.pixels), dtype=np.bool_)
    images = read_contents(paths.catalogue, ["near_duplicate_group", "subject"])
    by_champion, by_candidate = (
        was_trained_on(paths.models / each.version, images.index) for each in (champion, candidate)
    )
    is_seen = pd.Series(by_champion, images.index)
    for column in ("near_duplicate_group", "subject"):
        names = set(images.loc[by_champion, column].dropna()) - set(images.loc[by_candidate, column])
        is_seen |= images[column].isin(names)
    return ~is_seen.reindex(list(split.content_hashes), fill_value=False).to_numpy(dtype=np.bool_)


def _is_comparable(is_unseen: npt.NDArray[np.bool_], gate: GateConfig) -> bool:
    """Return whether enough test images are new to the champion: of a small test split, half of them."""
    return bool(is_unseen.sum() >= min(gate.min_images_compared, len(is_unseen) / 2))


def _decide(
    registry: Registry,
    candidate: LabelledPredictions,
    champion: LabelledPredictions | None,
    is_unseen: npt.NDArray[np.bool_],
    gate: GateConfig,
    force_reason: str | None,
) -> Decision:
    """Apply the gate, what people decided before, and `force_reason`."""
    classifier = Classifier(registry.models_dir / candidate.version)
    self_test_error = None
    try:
        classifier.self_test()
    except BundleMismatchError as error:
        self_test_error = str(error)
    latency_ms = _measure_latency_ms(classifier)
    if not _is_comparable(is_unseen, gate):
        champion = None
    decision = decide(
        candidate, champion, gate, is_unseen=is_unseen, latency_ms=latency_ms, self_test_error=self_test_error
    )
    champion_version = registry.champion()
    blockers = []
    if registry.state(candidate.version) == ModelState.ROLLED_BACK:
        blockers.append(
            f"{candidate.version} was rolled back by a person. Train with another seed or other data, or set "
            "force_reason."
        )
    if champion is None and champion_version is not None:
        bundle_dir = registry.models_dir / champion_version
        blockers.append(_describe_incomparable(bundle_dir, candidate.emotions, is_unseen, gate))
    if blockers:
        reasons = blockers + ([] if decision.is_accepted else decision.reasons)
        decision = dataclasses.replace(decision, champion=champion_version, is_accepted=False, reasons=reasons)
    if force_reason is not None and not decision.is_accepted:
        decision = dataclasses.replace(decision, is_accepted=True, force_reason=force_reason.strip())
    return decision


def _describe_incomparable(
    champion_dir: Path, emotions: tuple[str, ...], is_unseen: npt.NDArray[np.bool_], gate: GateConfig
) -> str:
    """Say why a candidate was not compared with the champion."""
    try:
        before = tuple(read_manifest(champion_dir).emotions)
    except BundleMismatchError as error:
        return f"The candidate was not compared with the champion {champion_dir.name}: {error}"
    if not _is_comparable(is_unseen, gate):
        return (
            f"The champion {champion_dir.name} knows {(~is_unseen).sum():,} of {len(is_unseen):,} test images, or "
            "their subjects, from its training; the others are too few for a comparison. To accept the candidate, set "
            "force_reason of evaluation_report."
        )
    if before == emotions:
        return f"The champion {champion_dir.name} is damaged, so the candidate was not compared with it."
    return (
        f"The champion {champion_dir.name} is for the classes {', '.join(before)}; the candidate is for "
        f"{', '.join(emotions)}, which changes what the service answers. To accept that, set force_reason of "
        "evaluation_report."
    )


def _measure_latency_ms(classifier: Classifier) -> float:
    """Return the median time in milliseconds for one image."""
    image = golden_input()
    return 1000 * statistics.median(
        timeit.repeat(lambda: classifier.predict(image), number=1, repeat=_NUM_LATENCY_RUNS)
    )


def _evaluate(
    paths: DataPaths,
    classifier: Classifier,
    split: Split,
    candidate: LabelledPredictions,
    champion: LabelledPredictions | None,
    is_unseen: npt.NDArray[np.bool_],
    *,
    is_compared: bool,
    decision: Decision,
) -> Evaluation:
    """Compute everything that the report shows."""
    compared = champion.select(is_unseen) if champion and is_compared else None
    external = read_external(paths, split.emotions, paths.models / classifier.version)
    change = None
    if champion:
        change = measure_test_set_change(paths.evaluation_report(champion.version), split, champion, is_unseen)
    return Evaluation(
        manifest=classifier.manifest,
        decision=decision,
        scores=compute_scores(candidate),
        intervals=compute_intervals(candidate),
        slices=score_slices(candidate, split, paths),
        majority_scores=compute_scores(predict_majority(split)),
        champion_scores=compute_scores(compared) if compared else None,
        champion_intervals=compute_intervals(compared) if compared else None,
        test_set_change=change,
        baseline=read_baseline(paths, split),
        external=compute_scores(predict_split(classifier, external)) if len(external.pixels) else None,
        subjects=score_subjects(candidate, split, paths.splits),
        is_divided=bool(read_assignments(paths.splits)["is_divided"].any()),
    )
