from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.maintenance.retention import find_expired, main, remove_expired
from emotion_assets.steps.registry.registry import Decision, Registry
from tests.steps.evaluation.helpers import add_bundle

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
    for folder in (paths.training_runs / ".ray", paths.reports / "tuning" / "runs"):
        (folder / YEAR_AGO).mkdir(parents=True)
        (folder / YEAR_AGO / "file").write_text("x")
    (paths.training_runs / "precision.json").write_text("{}")  # no log: interrupted trainings resume by it
    for path in [*paths.training_runs.rglob("*"), *paths.training_runs.rglob("run/*"), *paths.models.rglob("*")]:
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
        "training log",
        "trial log",
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
        f"reports/training/.ray/{YEAR_AGO}/file",
        f"reports/tuning/runs/{YEAR_AGO}/file",
    }
    assert find_expired(paths) == []


def test_the_command_removes_nothing_by_itself(
    paths: DataPaths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["retention", str(paths.root), "--days", "30"])
    main()
    assert "7 items" in (listed := capsys.readouterr().out)
    assert "would be removed; nothing was" in listed
    assert len(find_expired(paths)) == 7

    monkeypatch.setattr("sys.argv", ["retention", str(paths.root), "--apply"])
    main()
    assert "Removed: 7 items" in capsys.readouterr().out
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


@pytest.mark.parametrize(("age_days", "days", "is_expired"), [(60, 90, False), (60, 30, True), (90, 90, False)])
def test_what_is_younger_than_its_retention_stays(tmp_path: Path, age_days: int, days: float, is_expired: bool) -> None:
    """A day counts from its end, so that its last prediction has its whole retention."""
    paths = DataPaths(tmp_path)
    day = paths.predictions / f"{datetime.now(UTC) - timedelta(days=age_days):%Y-%m-%d}"
    day.mkdir(parents=True)
    (day / "a.jsonl").write_text("{}")

    assert bool(find_expired(paths, days)) == is_expired


def test_days_are_at_least_one(paths: DataPaths) -> None:
    """A running training and today's predictions stay."""
    with pytest.raises(UnusableDataError, match="at least one day"):
        find_expired(paths, 0)


def test_a_compacted_day_is_a_file(tmp_path: Path) -> None:
    """And is removed like a folder; private files and locks are none of a day."""
    paths = DataPaths(tmp_path)
    history = paths.predictions / "history"
    history.mkdir(parents=True)
    for name in ("2020-01-01.parquet", ".lock"):
        (history / name).write_text("x")
        os.utime(history / name, (1, 1))

    expired = find_expired(paths)
    remove_expired(paths, expired)

    assert [each.path.name for each in expired] == ["2020-01-01.parquet"]
    assert [path.name for path in history.iterdir()] == [".lock"]


def test_a_run_is_as_old_as_its_newest_file(paths: DataPaths) -> None:
    """A training that still writes into an old folder is not removed; its size counts the files."""
    run = paths.training_runs / "run"
    (before,) = (each for each in find_expired(paths) if each.path == run)
    (run / "big").write_bytes(bytes(100_000))

    assert run not in [each.path for each in find_expired(paths)]
    os.utime(run / "big", (1, 1))
    os.utime(run, (1, 1))
    (after,) = (each for each in find_expired(paths) if each.path == run)
    assert after.size_bytes - before.size_bytes >= 100_000


def test_old_models_are_listed_and_removed(paths: DataPaths) -> None:
    """As `make clean-models` does, with what belongs to them."""
    registry = Registry(paths.models)
    (champion,) = registry.versions()
    for number in range(1, 30):
        name = add_bundle(paths.models, paths.models / champion, number)
        registry.record(Decision(candidate=name, champion=champion, is_accepted=False, reasons=["because"]))
        paths.evaluation_report(name).mkdir(parents=True)

    models = [each.path.name for each in find_expired(paths) if each.kind == "model"]
    remove_expired(paths, find_expired(paths))

    assert models
    assert not {*models} & {*registry.versions()}
    assert not [name for name in models if paths.evaluation_report(name).exists()]
    assert registry.champion() == champion
    assert find_expired(paths) == []
