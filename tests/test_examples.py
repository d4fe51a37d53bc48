"""The examples run as they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import matplotlib as mpl
import pytest

CHECKOUT = Path(__file__).parents[1]


def test_the_notebook_runs(
    drawn_root: Path,
    bundle_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Cell by cell, on a data root with a champion."""
    root = tmp_path / "data" / "demo"
    shutil.copytree(bundle_dir, root / "models" / bundle_dir.name)
    champion = {"schema_version": 1, "version": bundle_dir.name, "history": []}
    (root / "models" / "champion.json").write_text(json.dumps(champion))
    (root / "splits").symlink_to(drawn_root / "splits")
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    cells = json.loads((CHECKOUT / "examples" / "explore.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    names: dict[str, object] = {}
    for source in code:
        exec(source, names)

    assert len(code) == 5
    assert f"{bundle_dir.name}: accuracy 0." in capsys.readouterr().out
    assert len(names["is_right"]) == len(names["test"].pixels)  # type: ignore[arg-type, attr-defined]
