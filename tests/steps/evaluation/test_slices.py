from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.evaluation.scores import LabelledPredictions
from emotion_assets.steps.evaluation.slices import score_slices
from emotion_assets.steps.splits.splits import Split


def gradually_brighter(count: int) -> Split:
    """Images that get brighter from the first to the last."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 20, (count, 64, 64))
    pixels = (np.linspace(20, 220, count)[:, None, None] + noise).astype(np.uint8)
    return Split(pixels, np.zeros(count, dtype=np.int64), tuple(f"{i:064x}" for i in range(count)))


def correct_on_first_half(count: int) -> LabelledPredictions:
    """Correct on the darker half, wrong on the brighter one."""
    probabilities = np.zeros((count, 5), dtype=np.float32)
    probabilities[: count // 2, 0] = 1
    probabilities[count // 2 :, 1] = 1
    return LabelledPredictions("x", probabilities, np.zeros(count, dtype=np.int64))


def test_thirds_by_brightness_partition_the_faces(tmp_path: Path) -> None:
    """Each third has a third of the faces; all of the darkest are correct, none of the brightest."""
    slices = score_slices(correct_on_first_half(90), gradually_brighter(90), DataPaths(tmp_path))
    found = {item.name: item for item in slices if item.family == "brightness"}

    assert [item.num_images for item in found.values()] == [30, 30, 30]
    assert [item.accuracy for item in found.values()] == [1, 0.5, 0]
    assert found["middle third"].low < 0.5 < found["middle third"].high


def test_sizes_and_sources_come_from_the_catalogue(tmp_path: Path) -> None:
    """The shorter side gives the size, the first folder that names no class the source; small slices are left out."""
    split = gradually_brighter(60)
    table = pd.DataFrame(
        {
            "path": [f"Angry/phone/{i}.jpg" if i < 25 else f"studio/Angry/{i}.jpg" for i in range(55)]
            + [f"Angry/{i}.jpg" for i in range(55, 60)],
            "content_hash": split.content_hashes,
            "is_accepted": True,
            "width_px": [48] * 30 + [300] * 30,
            "height_px": [60] * 30 + [400] * 30,
        }
    )
    (tmp_path / "catalogue").mkdir()
    table.to_parquet(tmp_path / "catalogue" / "catalogue.parquet")

    slices = score_slices(correct_on_first_half(60), split, DataPaths(tmp_path))
    found = {(item.family, item.name): item for item in slices}

    assert found["original size", "under 64 px"].accuracy == 1
    assert found["original size", "256 px and more"].num_images == 30
    assert found["source folder", "phone"].num_images == 25
    assert found["source folder", "studio"].accuracy == pytest.approx(5 / 30)
    assert ("source folder", "(none)") not in found
