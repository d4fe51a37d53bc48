"""Show all drift reports over time in Evidently's own user interface: `python -m emotion_assets.steps.drift.dashboard`.

The workspace is built from the snapshots beside the reports at every start, so no check has to keep it up to date.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from emotion_assets.core.layout import DataPaths
from emotion_assets.core.settings import EmotionSettings
from emotion_assets.steps.drift.report import SNAPSHOT_NAME

PROJECT_NAME: Final = "emotions"


def build_workspace(paths: DataPaths) -> Path:
    """Build Evidently's workspace from the snapshots of all drift reports; return its folder."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    from evidently.core.report import Snapshot
    from evidently.ui.workspace import Workspace

    workspace_dir = paths.reports / "evidently"
    shutil.rmtree(workspace_dir, ignore_errors=True)
    workspace = Workspace.create(str(workspace_dir))
    project = workspace.create_project(PROJECT_NAME)
    for path in sorted(paths.drift_reports.glob(f"*/{SNAPSHOT_NAME}")):
        workspace.add_run(project.id, Snapshot.loads(path.read_text()), include_data=False)
    return workspace_dir


def main() -> int:
    """Build the workspace of EMOTION_DATA_DIR and serve it on the port that is given as the only argument."""
    workspace_dir = build_workspace(EmotionSettings.load().paths)
    command = [str(Path(sys.executable).with_name("evidently")), "ui", "--workspace", str(workspace_dir)]
    return subprocess.run([*command, "--host", "127.0.0.1", "--port", sys.argv[1]], check=False).returncode  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())
