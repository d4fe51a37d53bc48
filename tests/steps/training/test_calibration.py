from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import softmax

from emotion_assets.steps.training.calibration import fit_log_loss_temperature, fit_temperature


@pytest.fixture(scope="module")
def calibrated() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Logits of 4,000 images, with labels drawn from their probabilities."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (4000, 5)).astype(np.float32)
    return logits, np.array([rng.choice(5, p=p) for p in softmax(logits, axis=1)])


def test_temperature_corrects_overconfidence(
    calibrated: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]],
) -> None:
    """Logits that were multiplied by 3 get a temperature of about 3."""
    logits, truth = calibrated

    assert fit_temperature(logits * 3, truth) == pytest.approx(3, rel=0.1)
    assert fit_log_loss_temperature(logits * 3, truth) == pytest.approx(3, rel=0.1)


def test_mean_confidence_equals_accuracy(calibrated: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]) -> None:
    """Also where half of the predictions are overconfident and half underconfident."""
    logits, truth = calibrated
    uneven = logits * np.where(np.arange(4000) % 2, 4, 0.5).astype(np.float32)[:, None]

    confidence = softmax(uneven / fit_temperature(uneven, truth), axis=1).max(axis=1)

    assert confidence.mean() == pytest.approx((uneven.argmax(axis=1) == truth).mean(), abs=1e-3)


@pytest.mark.parametrize(("num_right", "expected"), [(0, 10), (5, 0.1)])
def test_temperature_is_limited(num_right: int, expected: float) -> None:
    """A network that is always wrong gets the upper limit, an always right one of tiny logits the lower one."""
    truth = np.zeros(5, dtype=np.int64)
    logits = np.eye(5, dtype=np.float32)[np.full(5, 0 if num_right else 1)] * (1e-3 if num_right else 1e3)

    assert fit_temperature(logits, truth) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("num_faces", [10, 60, 2000])
def test_few_correct_predictions_do_not_justify_certainty(num_faces: int) -> None:
    """The highest confidence is that of a pseudo-count of a right and a wrong prediction, however many classes."""
    truth = np.arange(num_faces) % 5
    logits = 5 * np.eye(5, dtype=np.float32)[truth]

    scaled = np.exp(logits / fit_temperature(logits, truth))

    assert scaled.max(axis=1) / scaled.sum(axis=1) == pytest.approx((num_faces + 1) / (num_faces + 2), abs=1e-3)
