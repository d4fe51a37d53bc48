"""Where the model is better and where it is worse: accuracy by light, sharpness, original size and source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binomtest

from emotion_assets.core.image_stats import image_statistics
from emotion_assets.steps.evaluation.scores import LabelledPredictions
from emotion_assets.steps.ingest.export import TABLE_NAME
from emotion_assets.steps.splits.splits import Split

MIN_SLICE_IMAGES: Final = 20
_THIRDS: Final = {
    "brightness": ("darkest third", "middle third", "brightest third"),
    "contrast": ("flattest third", "middle third", "richest third"),
    "sharpness": ("softest third", "middle third", "sharpest third"),
}
_MAX_SOURCES: Final = 8
_CHUNK: Final = 512


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of the test images, and how often the model is right on it."""

    family: str
    name: str
    num_images: int
    accuracy: float
    low: float
    high: float
    """Wilson's 95 % interval of the accuracy."""


def slices(answers: LabelledPredictions, split: Split, catalogue_dir: Path) -> list[Slice]:
    """Score parts of a split; parts of fewer than 20 images are left out.

    Args:
        answers: a model's answers for `split`.
        split: the images.
        catalogue_dir: its table gives original sizes and source folders, if it is there.
    """
    found = [*_by_look(split), *_by_origin(split, catalogue_dir)]
    right = answers.is_right
    return [_slice(family, name, right[chosen]) for family, name, chosen in found if chosen.sum() >= MIN_SLICE_IMAGES]


def _slice(family: str, name: str, right: npt.NDArray[np.bool_]) -> Slice:
    num_right, num = int(right.sum()), len(right)
    interval = binomtest(num_right, num).proportion_ci(method="wilson")
    return Slice(family, name, num, num_right / num, float(interval.low), float(interval.high))


_Part = tuple[str, str, npt.NDArray[np.bool_]]


def _by_look(split: Split) -> Iterator[_Part]:
    chunks = [image_statistics(split.pixels[start : start + _CHUNK]) for start in range(0, len(split.pixels), _CHUNK)]
    for family, names in _THIRDS.items():
        values = np.concatenate([chunk[family] for chunk in chunks])
        # Ranks, not values: equal values must not all fall on one side.
        thirds = np.argsort(np.argsort(values, kind="stable"), kind="stable") * len(names) // len(values)
        yield from ((family, name, thirds == number) for number, name in enumerate(names))


def _by_origin(split: Split, catalogue_dir: Path) -> Iterator[_Part]:
    path = catalogue_dir / TABLE_NAME
    if not path.exists():
        return
    table = pd.read_parquet(path, columns=["path", "content_hash", "width_px", "height_px"])
    table = table.drop_duplicates("content_hash").set_index("content_hash").reindex(list(split.content_hashes))
    sides = table[["width_px", "height_px"]].min(axis=1).to_numpy(dtype=np.float64, na_value=np.nan)
    for name, low, high in (("under 64 px", 0, 64), ("64 to 255 px", 64, 256), ("256 px and more", 256, np.inf)):
        yield "original size", name, (sides >= low) & (sides < high)
    # raw/<Emotion>/<source>/…: a file right below the emotion has no source.
    parts = table["path"].fillna("").str.split("/")
    sources = np.array([part[1] if len(part) > 2 else "(none)" for part in parts], dtype=object)
    names, counts = np.unique(sources.astype(str), return_counts=True)
    if len(names) > 1:
        for name in names[np.argsort(-counts)][:_MAX_SOURCES]:
            yield "source folder", str(name), sources == name
