from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.maintenance.retention import find_expired, main, remove_expired
from emotion_assets.steps.registry.registry import Decision, Registry

NOW = datetime.now(UTC)
YEAR_AGO = f"{NOW - timedelta(days=365):%Y-%m-%d}"


@pytest.fixture
def paths(bundle_dir: Path, tmp_path: Path) -> DataPaths:
    """A data root with a file of each kind from today and from a year ago, and a champion as old.

    Copies of the logged days are younger than what is in them.
    """
    paths = DataPaths(tmp_path / "data")
    shutil.copytree(bundle_dir, paths.models / bundle_dir.name)
    Registry(paths.models).record(Decision(candidate=bundle_dir.name, is_accepted=True, reasons=[]))
    history = paths.predictions / "history"
    folders = (paths.predictions, history, paths.image_log, paths.drift_reports, paths.training_runs)
    for folder in (*folders, paths.raw, paths.feedback):
        for name in (YEAR_AGO, f"{NOW:%Y-%m-%d}"):
            (folder / name).mkdir(parents=True)
            (folder / name / "file").write_text("x")
    year_ago = NOW.timestamp() - 365 * 86_400
    (paths.training_runs / YEAR_AGO).rename(paths.training_runs / "run")
    for path in [*paths.training_runs.rglob("run"), *paths.training_runs.rglob("run/*"), *paths.models.rglob("*")]:
        os.utime(path, (year_ago, year_ago))
    return paths


def test_what_is_old_is_listed_and_removed(paths: DataPaths) -> None:
    """Raw images, labels and the champion stay, however old they are."""
    before = {path for path in paths.root.rglob("*") if path.is_file()}
    expired = find_expired(paths)

    assert [each.kind for each in expired] == [
        "predictions",
        "predictions",
        "stored images",
        "drift report",
        "training log",
    ]
    assert all(364 < each.days < 366 and each.size_bytes > 0 for each in expired)
    remove_expired(paths, expired)
    left = {path for path in paths.root.rglob("*") if path.is_file()}
    assert {path.relative_to(paths.root).as_posix() for path in before - left} == {
        f"predictions/{YEAR_AGO}/file",
        f"predictions/history/{YEAR_AGO}/file",
        f"predictions/images/{YEAR_AGO}/file",
        f"reports/drift/{YEAR_AGO}/file",
        "reports/training/run/file",
    }
    assert find_expired(paths) == []


def test_the_command_removes_nothing_by_itself(
    paths: DataPaths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["retention", str(paths.root), "--days", "30"])
    main()
    assert "5 items" in (listed := capsys.readouterr().out)
    assert "would be removed; nothing was" in listed
    assert len(find_expired(paths)) == 5

    monkeypatch.setattr("sys.argv", ["retention", str(paths.root), "--apply"])
    main()
    assert "Removed: 5 items" in capsys.readouterr().out
    assert find_expired(paths) == []


def test_what_cannot_be_removed_is_an_error(
    paths: DataPaths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a container wrote may belong to another user."""

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("shutil.rmtree", refuse)
    monkeypatch.setattr("sys.argv", ["retention", str(paths.root), "--apply"])

    with pytest.raises(SystemExit, match=f"Permission denied: '{paths.predictions / YEAR_AGO}'"):
        main()
    assert "Removed" not in capsys.readouterr().out
