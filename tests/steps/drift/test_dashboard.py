from __future__ import annotations

from pathlib import Path

from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.drift.dashboard import PROJECT_NAME, build_workspace
from emotion_assets.steps.drift.report import write_drift_report
from emotion_assets.steps.drift.windows import ReportHistory
from tests.steps.drift.helpers import random_window
from tests.steps.drift.test_report import record_of


def test_the_workspace_is_rebuilt_from_all_reports(tmp_path: Path) -> None:
    """It has one run for each report, also where an earlier build left torn files."""
    from evidently.ui.workspace import Workspace

    paths = DataPaths(tmp_path)
    current, reference = random_window(100, seed=1), random_window(500, seed=0)
    record = record_of(current, reference)
    for day in (1, 2):
        folder = paths.drift_reports / f"2025010{day}T000000000000"
        write_drift_report(folder, record, current, reference, ReportHistory(paths.drift_reports, "v1"))
    for path in build_workspace(paths).rglob("*.json"):
        path.write_text("{")

    workspace = Workspace(str(build_workspace(paths)))

    (project,) = workspace.list_projects()
    assert project.name == PROJECT_NAME
    assert len(workspace.list_runs(project.id)) == 2


def test_without_reports_the_workspace_is_empty(tmp_path: Path) -> None:
    """The user interface starts before the first check, too."""
    assert build_workspace(DataPaths(tmp_path)).is_dir()
