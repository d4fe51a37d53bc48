"""Detect images unlike the validation images, by Mahalanobis distance of their statistics.

Means and distributions hide a few strange images among many ordinary ones; counting outliers does not.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from emotion_assets.core.image_stats import STATISTICS

OUTLIER_PERCENTILE: Final = 98
"""An image is an outlier when its distance exceeds that of this percentage of the reference."""


class OutlierDetector:
    """A detector fitted to the statistics of a reference."""

    def __init__(self, reference: pd.DataFrame) -> None:
        """Fit the detector to a reference, one row per image, with the columns of STATISTICS."""
        values = reference[list(STATISTICS)].to_numpy(dtype=np.float64)
        self._center = values.mean(axis=0)
        # Nearly constant or collinear statistics must not inflate a distance.
        covariance = np.cov(values, rowvar=False) + 1e-9 * np.eye(len(STATISTICS))
        self._inverse = np.linalg.pinv(covariance, hermitian=True)
        distances = _leave_one_out(self._distances(reference), len(values))
        self._limit = float(np.percentile(distances, OUTLIER_PERCENTILE))
        self.num_outliers_in_reference = int((distances > self._limit).sum())

    def is_outlier(self, current: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Return which images are outliers, bool (image,)."""
        return np.asarray(self._distances(current) > self._limit)

    def _distances(self, table: pd.DataFrame) -> npt.NDArray[np.float64]:
        deviations = table[list(STATISTICS)].to_numpy(dtype=np.float64) - self._center
        return np.asarray(np.einsum("ij,jk,ik->i", deviations, self._inverse, deviations))


def _leave_one_out(distances: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    """Return each squared distance as if its row had not been fitted to.

    The closed form is Sherman and Morrison's for the inverse without one row. Without it, a reference of 100 faces
    would call one new face in nine an outlier.
    """
    rest = np.maximum((count - 1) ** 2 - count * distances, 1e-9)
    return np.asarray(count**2 * (count - 2) * distances / ((count - 1) * rest))
