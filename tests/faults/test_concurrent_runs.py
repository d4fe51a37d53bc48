"""Two processes run one stage on one data root at the same time."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from emotion_assets.core.layout import DataPaths
from tests.faults.helpers import (
    INGEST,
    SPLITS,
    TRAINING,
    Stage,
    check_bundles,
    check_catalogue,
    check_splits,
    removing,
)


@pytest.mark.parametrize(
    ("code", "check", "name"),
    [(INGEST, check_catalogue, "drawn"), (SPLITS, check_splits, "ingested"), (TRAINING, check_bundles, "split")],
    ids=["ingest", "splits", "training"],
)
def test_a_stage_that_runs_twice_at_once_gives_one_result(
    request: pytest.FixtureRequest,
    split: Path,
    tmp_path: Path,
    code: str,
    check: Callable[[DataPaths], object],
    name: str,
) -> None:
    """Both succeed; the result is that of one run, and nothing temporary is left."""
    roots = [tmp_path / "alone", tmp_path / "together"]
    alone, together = (
        Stage(DataPaths(Path(shutil.copytree(request.getfixturevalue(name), root))), code, removing(), check)
        for root in roots
    )
    alone.run()

    processes = [together.start() for _ in range(2)]
    for process in processes:
        process.communicate(timeout=120)

    assert [process.returncode for process in processes] == [0, 0]
    assert together.check() == alone.check() != 0
    assert list(roots[1].rglob("*.tmp")) == []
