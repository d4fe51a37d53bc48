from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.steps.training.helpers import TINY


def test_errors_are_left_for_the_launcher(tmp_path: Path) -> None:
    """The result file has class and message, so that the launcher can raise them."""
    result = tmp_path / "result.json"
    job = {"root": str(tmp_path), "config": TINY.model_dump(), "code_version": "", "tracker": "none"}
    (tmp_path / "job.json").write_text(json.dumps(job | {"result": str(result)}))

    command = [sys.executable, "-m", "emotion_assets.steps.training.worker", str(tmp_path / "job.json")]
    process = subprocess.run(command, env=os.environ | {"RANK": "0"}, check=False)

    assert process.returncode == 1
    error = json.loads(result.read_text())
    assert error["error"] == "UnusableDataError"
    assert "Materialize greyscale_splits first" in error["message"]
