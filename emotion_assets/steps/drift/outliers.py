"""Which images are unlike the validation faces: far away in units of the faces' own spread (Mahalanobis distance)."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from emotion_assets.core.image_stats import STATISTICS

OUTLIER_PERCENTILE: Final = 98
"""An image is odd when its distance exceeds that of so many percent of the reference."""


class OutlierDetector:
    """The distances of a reference, ready to be compared with any image."""

    def __init__(self, reference: pd.DataFrame) -> None:
        """Measure the reference, one row an image with the columns of STATISTICS."""
        values = reference[list(STATISTICS)].to_numpy(dtype=np.float64)
        self._center = values.mean(axis=0)
        # Statistics that hardly vary, or follow each other closely, must not blow a distance up.
        spread = np.cov(values, rowvar=False) + 1e-9 * np.eye(len(STATISTICS))
        self._inverse = np.linalg.pinv(spread, hermitian=True)
        distances = _without_itself(self._distances(reference), len(values))
        self._limit = float(np.percentile(distances, OUTLIER_PERCENTILE))
        self.num_outliers_in_reference = int((distances > self._limit).sum())

    def is_outlier(self, current: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Return which images are unlike the reference, bool (image,)."""
        return np.asarray(self._distances(current) > self._limit)

    def _distances(self, table: pd.DataFrame) -> npt.NDArray[np.float64]:
        away = table[list(STATISTICS)].to_numpy(dtype=np.float64) - self._center
        return np.asarray(np.einsum("ij,jk,ik->i", away, self._inverse, away))


def _without_itself(distances: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    """Return each squared distance as if its row had no part in center and spread, which it draws towards itself.

    The closed form is Sherman and Morrison's for the inverse after one row is taken out; without it a reference of
    100 faces calls one fresh face in nine odd.
    """
    rest = np.maximum((count - 1) ** 2 - count * distances, 1e-9)
    return np.asarray(count**2 * (count - 2) * distances / ((count - 1) * rest))
