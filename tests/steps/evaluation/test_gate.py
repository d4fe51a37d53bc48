from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.steps.evaluation.gate import decide
from emotion_assets.steps.evaluation.scores import LabelledPredictions
from tests.steps.evaluation.helpers import simulate


def test_a_first_model_must_meet_the_minimums() -> None:
    """Without a champion the minimums decide."""
    assert decide(simulate(0.8, confidence=0.8)).is_accepted
    rejected = decide(simulate(0.3, confidence=0.3))
    assert not rejected.is_accepted
    assert "minimum of 0.4" in rejected.reasons[0]


def test_better_and_equal_candidates_are_accepted() -> None:
    """A better candidate passes, and so does one with the same predictions."""
    champion = simulate(0.7, version="old", confidence=0.7)

    better = decide(simulate(0.85, seed=1, confidence=0.8), champion)
    equal = decide(replace(champion, version="new"), champion)

    assert better.is_accepted
    assert better.accuracy_difference is not None
    assert better.accuracy_difference > 0.1
    assert equal.is_accepted
    assert equal.p_value == 1.0


def test_a_worse_candidate_is_rejected_by_the_mcnemar_test() -> None:
    """Eight points worse is significant, and the reason counts the images."""
    decision = decide(simulate(0.72, seed=1, confidence=0.7), simulate(0.8, version="old", confidence=0.8))

    assert not decision.is_accepted
    assert decision.p_value is not None
    assert decision.p_value < 0.05
    assert f"only the champion is correct on {decision.num_only_champion_correct} images" in decision.reasons[0]
    assert "McNemar" in decision.reasons[0]
    assert decision.champion == "old"


def test_a_candidate_that_lost_an_emotion_is_rejected() -> None:
    """Better overall, but one class is never predicted."""
    champion = simulate(0.7, version="old", confidence=0.7)
    candidate = simulate(0.97, seed=1, confidence=0.8)
    candidate.probabilities[candidate.class_indices == 1] = [0.8, 0.05, 0.05, 0.05, 0.05]

    decision = decide(candidate, champion)

    assert not decision.is_accepted
    assert any("fear" in reason for reason in decision.reasons)
    assert decision.accuracy_difference is not None
    assert decision.accuracy_difference > 0


@pytest.mark.parametrize(("num_lost", "is_accepted"), [(6, True), (7, False)])
def test_a_recall_loss_of_a_few_images_is_chance(num_lost: int, is_accepted: bool) -> None:
    """Six images of twelve, p = 1/64, are no reason to reject a model that is better otherwise; seven are, with 1/128."""
    champion = simulate(0.6, version="old", count=60, confidence=0.7)
    candidate = simulate(1, count=60)
    is_fear = np.flatnonzero(champion.class_indices == 1)
    champion.probabilities[is_fear] = [0.1, 0.6, 0.1, 0.1, 0.1]
    candidate.probabilities[is_fear[:num_lost]] = [0.6, 0.1, 0.1, 0.1, 0.1]

    decision = decide(candidate, champion)

    assert decision.is_accepted == is_accepted, decision.reasons


@pytest.mark.parametrize(
    ("count", "accuracy", "num_lost", "is_accepted"),
    [
        (60, 0.8, 2, True),  # three points, but only two images
        (60, 0.8, 3, False),
        (300, 0.71, 3, True),  # exactly the allowed point, which as a difference of floats is slightly more
        (300, 0.71, 4, False),
    ],
)
def test_a_small_accuracy_loss_is_allowed(count: int, accuracy: float, num_lost: int, is_accepted: bool) -> None:
    """Two images, or one point of accuracy, may be lost; more may not, even if it is not significant."""
    champion = simulate(accuracy, version="old", count=count, confidence=0.7)
    candidate = replace(champion, version="new", probabilities=champion.probabilities.copy())
    wrong = (champion.class_indices + 1) % len(EMOTIONS)
    for index in range(num_lost):  # of another emotion each
        image = np.flatnonzero(champion.is_correct & (champion.class_indices == index))[0]
        candidate.probabilities[image] = np.eye(len(EMOTIONS))[wrong[image]]

    decision = decide(candidate, champion)

    assert decision.accuracy_difference == pytest.approx(-num_lost / count)
    assert decision.is_accepted == is_accepted, decision.reasons


def test_bad_calibration_is_rejected() -> None:
    """A model that is far too confident does not pass."""
    decision = decide(simulate(0.6, confidence=0.99))

    assert not decision.is_accepted
    assert "Calibration" in decision.reasons[0]


def test_a_slow_model_is_rejected() -> None:
    """The reason names the latency and its maximum."""
    decision = decide(simulate(0.8, confidence=0.8), latency_ms=80)

    assert decision.reasons == ["Latency of 80.0 ms for one image exceeds the maximum of 50 ms."]
    assert not decision.is_accepted
    assert decision.latency_ms == 80


def test_a_failed_self_test_is_rejected() -> None:
    """However good the predictions are."""
    decision = decide(simulate(0.8, confidence=0.8), self_test_error="Model x differs from its golden prediction.")

    assert decision.reasons == ["The self-test failed: Model x differs from its golden prediction."]
    assert not decision.is_accepted


def test_a_better_model_may_replace_a_weak_champion() -> None:
    """The minimum accuracy is for a first model: below it, every retraining would be blocked for good."""
    decision = decide(simulate(0.35, confidence=0.35), simulate(0.3, version="old", confidence=0.3))

    assert decision.is_accepted, decision.reasons


def test_a_small_but_significant_loss_is_rejected() -> None:
    """Eight images lost and one won of a thousand are less than a point of accuracy, and no chance."""
    champion = simulate(0.8, version="old", confidence=0.8)
    candidate = replace(champion, version="new", probabilities=champion.probabilities.copy())
    lost, won = np.flatnonzero(champion.is_correct)[:8], np.flatnonzero(~champion.is_correct)[:1]
    for images, shift in ((lost, 1), (won, 0)):
        candidate.probabilities[images] = np.eye(5)[(champion.class_indices[images] + shift) % 5]

    decision = decide(candidate, champion)

    assert decision.p_value == pytest.approx(10 / 2**9)
    assert not decision.is_accepted
    assert len(decision.reasons) == 1
    assert "McNemar" in decision.reasons[0]


@pytest.mark.parametrize(("points", "is_accepted"), [(7, True), (9, False)])
def test_a_recall_may_lose_eight_points(points: int, is_accepted: bool) -> None:
    """Of one emotion, in a model that is better otherwise."""
    champion = simulate(0.8, version="old", count=500, confidence=0.8)
    candidate = simulate(0.9, count=500, confidence=0.9)
    is_fear = np.flatnonzero(champion.class_indices == 1)
    champion.probabilities[is_fear] = [0.1, 0.6, 0.1, 0.1, 0.1]
    candidate.probabilities[is_fear] = [0.05, 0.8, 0.05, 0.05, 0.05]
    candidate.probabilities[is_fear[:points]] = [0.8, 0.05, 0.05, 0.05, 0.05]

    assert decide(candidate, champion).is_accepted == is_accepted


@pytest.mark.parametrize(("recall", "is_accepted"), [(0.08, False), (0.12, True)])
def test_a_first_model_must_know_every_emotion(recall: float, is_accepted: bool) -> None:
    """Half of chance is a tenth with five classes."""
    candidate = simulate(0.9, confidence=0.8)
    is_fear = np.flatnonzero(candidate.class_indices == 1)
    candidate.probabilities[is_fear] = [0.8, 0.05, 0.05, 0.05, 0.05]
    candidate.probabilities[is_fear[: round(recall * len(is_fear))]] = [0.05, 0.8, 0.05, 0.05, 0.05]

    assert decide(candidate).is_accepted == is_accepted


@pytest.mark.parametrize(("num_fear", "is_accepted"), [(2, True), (3, False)])
def test_a_recall_of_a_few_images_is_chance(num_fear: int, is_accepted: bool) -> None:
    """With two test images of an emotion, none of them found proves nothing."""
    candidate = simulate(1, confidence=0.95)
    is_fear = candidate.class_indices == 1
    kept = np.concatenate([np.flatnonzero(~is_fear), np.flatnonzero(is_fear)[:num_fear]])
    candidate.probabilities[is_fear] = [0.95, 0.0125, 0.0125, 0.0125, 0.0125]
    few = replace(candidate, probabilities=candidate.probabilities[kept], class_indices=candidate.class_indices[kept])

    assert decide(few).is_accepted == is_accepted


@pytest.mark.parametrize(
    ("count", "accuracy", "is_accepted"), [(1000, 0.75, False), (1000, 0.85, True), (400, 0.75, True)]
)
def test_a_few_images_prove_no_bad_calibration(count: int, accuracy: float, is_accepted: bool) -> None:
    """An error of 0.2 is too much among many images, and may be chance among few; 0.1 is not too much."""
    assert decide(simulate(accuracy, count=count, confidence=0.95)).is_accepted == is_accepted


def test_many_classes_do_not_reject_better_candidates() -> None:
    """Of forty recalls, some fall by chance."""
    rng = np.random.default_rng(0)
    truth = np.arange(1000) % 40

    def predict(accuracy: float) -> LabelledPredictions:
        predicted = np.where(rng.random(1000) < accuracy, truth, (truth + rng.integers(1, 40, 1000)) % 40)
        probabilities = np.full((1000, 40), 0.3 / 39, dtype=np.float32)
        probabilities[np.arange(1000), predicted] = 0.7
        return LabelledPredictions("x", probabilities, truth, emotions=tuple(map(str, range(40))))

    num_accepted = sum(decide(predict(0.75), predict(0.7)).is_accepted for _ in range(20))

    assert num_accepted >= 18


def test_images_that_the_champion_was_trained_on_do_not_count() -> None:
    """A champion knows its training images by heart; the others decide, and the reasons say how many were left out."""
    champion, candidate = simulate(0.7, version="old", confidence=0.7), simulate(0.75, seed=1, confidence=0.7)
    is_unseen = np.arange(1000) % 2 == 0
    champion.probabilities[~is_unseen] = np.eye(5)[champion.class_indices[~is_unseen]]
    assert not decide(candidate, champion).is_accepted

    decision = decide(candidate, champion, is_unseen=is_unseen)

    assert decision.is_accepted
    assert decision.accuracy_difference == pytest.approx(
        candidate.is_correct[is_unseen].mean() - champion.is_correct[is_unseen].mean()
    )
    assert decision.reasons[1] == "Compared without 500 test images that the champion knows from its training."
