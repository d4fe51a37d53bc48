from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from emotion_assets.steps.evaluation.scores import LabelledPredictions
from emotion_assets.steps.evaluation.slices import slices
from emotion_assets.steps.splits.splits import Split


def gray_faces(count: int) -> Split:
    """Images that get brighter from the first to the last."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 20, (count, 64, 64))
    pixels = (np.linspace(20, 220, count)[:, None, None] + noise).astype(np.uint8)
    return Split(pixels, np.zeros(count, dtype=np.int64), tuple(f"{i:064x}" for i in range(count)))


def half_right(count: int) -> LabelledPredictions:
    """Right on the darker half, wrong on the brighter one."""
    probabilities = np.zeros((count, 5), dtype=np.float32)
    probabilities[: count // 2, 0] = 1
    probabilities[count // 2 :, 1] = 1
    return LabelledPredictions("x", probabilities, np.zeros(count, dtype=np.int64))


def test_thirds_by_brightness_partition_the_faces(tmp_path: Path) -> None:
    """Each third has a third of the faces; the darkest are all right, the brightest all wrong."""
    found = {
        part.name: part for part in slices(half_right(90), gray_faces(90), tmp_path) if part.family == "brightness"
    }

    assert [part.num_images for part in found.values()] == [30, 30, 30]
    assert [part.accuracy for part in found.values()] == [1, 0.5, 0]
    assert found["middle third"].low < 0.5 < found["middle third"].high


def test_sizes_and_sources_come_from_the_catalogue(tmp_path: Path) -> None:
    """Original sides decide the size, the folder below the emotion decides the source; small parts are left out."""
    split = gray_faces(60)
    table = pd.DataFrame(
        {
            "path": [f"Angry/{'phone' if i < 25 else 'studio'}/{i}.jpg" for i in range(55)]
            + [f"Angry/{i}.jpg" for i in range(55, 60)],
            "content_hash": split.content_hashes,
            "width_px": [48] * 30 + [300] * 30,
            "height_px": [60] * 30 + [400] * 30,
        }
    )
    table.to_parquet(tmp_path / "catalogue.parquet")

    found = {(part.family, part.name): part for part in slices(half_right(60), split, tmp_path)}

    assert found["original size", "under 64 px"].accuracy == 1
    assert found["original size", "256 px and more"].num_images == 30
    assert found["source folder", "phone"].num_images == 25
    assert found["source folder", "studio"].accuracy == pytest.approx(5 / 30)
    assert ("source folder", "(none)") not in found
