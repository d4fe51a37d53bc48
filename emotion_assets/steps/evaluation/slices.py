"""Accuracy on slices of the test images: by brightness, contrast, sharpness, original size and source folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from emotion_assets.core.classes import ClassSet, read_classes
from emotion_assets.core.image_stats import all_image_statistics
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.evaluation.intervals import proportion_interval
from emotion_assets.steps.evaluation.scores import LabelledPredictions
from emotion_assets.steps.ingest.export import TABLE_NAME, read_contents
from emotion_assets.steps.splits.splits import Split

MIN_SLICE_IMAGES: Final = 20
_THIRDS: Final = {
    "brightness": ("darkest third", "middle third", "brightest third"),
    "contrast": ("lowest third", "middle third", "highest third"),
    "sharpness": ("blurriest third", "middle third", "sharpest third"),
}
_SIZES_PX: Final = (("under 64 px", 0, 64), ("64 to 255 px", 64, 256), ("256 px and more", 256, np.inf))
_MAX_SOURCES: Final = 8


@dataclass(frozen=True, slots=True)
class Slice:
    """A subset of the test images, and the model's accuracy on it."""

    family: str
    name: str
    num_images: int
    accuracy: float
    low: float
    high: float
    """Wilson's 95 % interval of the accuracy."""


def score_slices(predictions: LabelledPredictions, split: Split, paths: DataPaths) -> list[Slice]:
    """Score slices of a split; slices with fewer than 20 images are left out.

    Original sizes and source folders come from the catalogue's table, if it exists.
    """
    slices = []
    for family, name, chosen in [
        *_by_statistic(split),
        *_by_origin(split, paths.catalogue, read_classes(paths.classes)),
    ]:
        num, num_correct = int(chosen.sum()), int(predictions.is_correct[chosen].sum())
        if num >= MIN_SLICE_IMAGES:
            accuracy = num_correct / num
            slices.append(Slice(family, name, num, accuracy, *proportion_interval(accuracy, num)))
    return slices


_Selection = tuple[str, str, npt.NDArray[np.bool_]]
"""Family and name of a slice, and which images it has."""


def _by_statistic(split: Split) -> Iterator[_Selection]:
    statistics = all_image_statistics(split.pixels)
    for family, names in _THIRDS.items():
        # By rank, so that equal values do not all fall into one third.
        ranks = rankdata(statistics[family], method="ordinal").astype(np.int64) - 1
        thirds = ranks * len(names) // len(ranks)
        yield from ((family, name, thirds == number) for number, name in enumerate(names))


def _by_origin(split: Split, catalogue_dir: Path, classes: ClassSet) -> Iterator[_Selection]:
    if not (catalogue_dir / TABLE_NAME).exists():
        return
    table = read_contents(catalogue_dir, ["path", "width_px", "height_px"]).reindex(list(split.content_hashes))
    sides = table[["width_px", "height_px"]].min(axis=1).to_numpy(dtype=np.float64, na_value=np.nan)
    for name, low, high in _SIZES_PX:
        yield "original size", name, (sides >= low) & (sides < high)
    # The first folder that names no class; a file directly in the folder of its class has no source.
    folders = table["path"].fillna("").str.split("/").str[:-1]
    sources = np.array([next((name for name in parts if not classes.find(name)), "(none)") for parts in folders])
    names, counts = np.unique(sources, return_counts=True)
    if len(names) > 1:
        for name in names[np.argsort(-counts)][:_MAX_SOURCES]:
            yield "source folder", str(name), sources == name
