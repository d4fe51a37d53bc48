from __future__ import annotations

import numpy as np
import pytest

from emotion_assets.core.image_stats import STATISTICS
from emotion_assets.steps.drift.outliers import OUTLIER_PERCENTILE, OutlierDetector
from tests.steps.drift.helpers import random_window


@pytest.mark.parametrize("count", [60, 200, 2000])
def test_new_images_are_outliers_as_rarely_as_those_of_the_reference(count: int) -> None:
    """A small reference does not call more images outliers than a large one: no row counts in its own distance."""
    detectors = [OutlierDetector(random_window(count, seed)) for seed in range(30)]
    expected = np.mean([detector.num_outliers_in_reference / count for detector in detectors])
    found = [detector.is_outlier(random_window(500, seed + 1000)).mean() for seed, detector in enumerate(detectors)]
    naive = []
    for seed in range(30):
        reference, new = (
            table[list(STATISTICS)] for table in (random_window(count, seed), random_window(500, seed + 1000))
        )
        center, inverse = reference.mean(), np.linalg.inv(np.cov(reference, rowvar=False))
        distances = [np.einsum("ij,jk,ik->i", away, inverse, away) for away in (reference - center, new - center)]
        naive.append((distances[1] > np.percentile(distances[0], OUTLIER_PERCENTILE)).mean())

    assert np.mean(found) == pytest.approx(expected, abs=0.01)
    if count < 100:
        assert np.mean(naive) > 0.15


def test_unusual_images_are_outliers() -> None:
    """Images whose statistics are unusual together are found one by one, though each statistic is ordinary alone."""
    current = random_window(200, seed=1)
    current.loc[:19, list(STATISTICS[:12])] += np.where(np.arange(12) % 2, 0.25, -0.25)

    is_outlier = OutlierDetector(random_window(3000, seed=0)).is_outlier(current)

    assert is_outlier[:20].sum() >= 18
    assert is_outlier[20:].mean() < 0.06


def test_constant_and_collinear_statistics_are_allowed() -> None:
    """A reference without any variance in a statistic still has finite distances."""
    reference = random_window(300, seed=0).assign(noise=0.0)
    reference["detail"] = 2 * reference["contrast"]

    assert OutlierDetector(reference).is_outlier(reference).mean() == pytest.approx(0.02, abs=0.01)
