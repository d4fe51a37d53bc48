"""Disks that are full or read-only, mounted for real in a namespace of their own (as root)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

STAGES = """
import sys
from pathlib import Path
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.ingest.catalogue import ingest_images
from emotion_assets.steps.splits.splits import make_splits
from emotion_assets.steps.training.config import training_config
from emotion_assets.steps.training.run import train_bundle
paths, until = DataPaths(Path(sys.argv[1])), sys.argv[2]
if until in ("ingest", "all"):
    ingest_images(paths)
if until in ("splits", "all"):
    make_splits(paths)
if until in ("training", "all"):
    train_bundle(paths, training_config("quick", epochs=1, width=8, batch_size=32), code_version="x")
"""


def run_mounted(mounts: str, root: Path, until: str) -> subprocess.CompletedProcess[str]:
    """Run stages after mounting in a private namespace, which ends with them."""
    command = f'{mounts} && exec "$PYTHON" -W ignore -c "$STAGES" "$ROOT" {until}'
    environment = os.environ | {"PYTHON": sys.executable, "STAGES": STAGES, "ROOT": str(root)}
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


MAY_MOUNT = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0
pytestmark = pytest.mark.skipif(
    not MAY_MOUNT, reason="this user may not mount: run as root, in a container --privileged"
)


@pytest.mark.parametrize(
    ("folder", "kilobytes", "until"),
    [("catalogue", 60, "ingest"), ("splits", 300, "splits"), ("models", 80, "training")],
)
def test_a_full_disk_is_named_and_leaves_the_rest_whole(
    drawn_root: Path, tmp_path: Path, folder: str, kilobytes: int, until: str
) -> None:
    """The message names a path on that disk; nothing else changes, and with room the same command succeeds."""
    root = tmp_path / "root"
    shutil.copytree(drawn_root, root)
    shutil.rmtree(root / folder, ignore_errors=True)
    (root / folder).mkdir()
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file() and "lock" not in path.name}

    full = run_mounted(f'mount -t tmpfs -o size={kilobytes}k tmpfs "$ROOT/{folder}"', root, until)

    assert full.returncode != 0
    last = full.stderr.strip().splitlines()[-1]
    assert re.search(r"No space left|disk is full", last), full.stderr[-2000:]
    assert str(root / folder) in last
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert run_mounted("true", root, until).returncode == 0


def test_a_read_only_root_is_one_clear_error(drawn_root: Path, tmp_path: Path) -> None:
    """The last line says what cannot be written."""
    root = tmp_path / "root"
    shutil.copytree(drawn_root, root)

    done = run_mounted('mount --bind "$ROOT" "$ROOT" && mount -o remount,ro,bind "$ROOT"', root, "all")

    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "Read-only file system" in last
    assert str(root) in last
