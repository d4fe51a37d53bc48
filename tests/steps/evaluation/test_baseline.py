from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.evaluation.baseline import measure_baseline, read_baseline
from emotion_assets.steps.splits.splits import read_split
from tests.steps.evaluation.helpers import link_data


def test_the_baseline_is_stored_for_exactly_its_test_images(drawn_root: Path, tmp_path: Path) -> None:
    """The stored result equals the returned one, repeats with the seed, and counts for no other test split."""
    paths = link_data(tmp_path, drawn_root)
    test = read_split(paths.splits, "test")
    assert read_baseline(paths, test) is None

    result = measure_baseline(paths, epochs=1)

    assert read_baseline(paths, test) == result
    assert measure_baseline(DataPaths(tmp_path), epochs=1).scores == result.scores
    assert read_baseline(paths, replace(test, content_hashes=test.content_hashes[::-1])) is None
    assert result.summary().values["test/accuracy"] == result.scores.accuracy
