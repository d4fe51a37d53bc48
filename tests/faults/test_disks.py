"""Disks that are full or read-only, mounted for real in a namespace of their own (as root)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emotion_assets.steps.packing.bento import build_bento
from tests import abuse

BIN = Path(sys.executable).parent

STAGES = """
import sys
from pathlib import Path
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.ingest.catalogue import ingest_images
from emotion_assets.steps.splits.make import make_splits
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


class MountedService:
    """A service with one worker, whose data root is mounted in its own namespace."""

    def __init__(self, mounts: str, root: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address, self._root = f"http://127.0.0.1:{port}", root
        serve = f'exec "{BIN / "bentoml"}" serve emotion_service:latest --host 127.0.0.1 --port {port}'
        settings = {"ROOT": str(root), "EMOTION_DATA_DIR": str(root), "EMOTION_WORKERS": "1"}
        self.process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", f"{mounts} && {serve}"],
            env=os.environ | settings,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def get(self, path: str) -> tuple[int, bytes]:
        with contextlib.suppress(OSError):
            return abuse.send(self.address, abuse.http("GET", path))
        return 0, b""

    def run_inside(self, command: str) -> None:
        """Run a shell command in the service's namespace."""
        enter = ["nsenter", f"--target={self.process.pid}", "--mount", "sh", "-c", command]
        subprocess.run(enter, env=os.environ | {"ROOT": str(self._root)}, check=True)

    def num_records(self, result: str) -> int:
        """Return how many records the service has counted as `written` or `lost`."""
        found = re.search(rf'emotion_log_records_total{{result="{result}"}} (\d+)', self.get("/metrics")[1].decode())
        return int(found[1]) if found else 0

    def logged_ids(self) -> list[str]:
        """Return the predictions in the log, as the service's namespace has it."""
        inside = Path(f"/proc/{self.process.pid}/root{self._root}")
        lines = [line for path in inside.rglob("*.jsonl") for line in path.read_text().splitlines()]
        return [json.loads(line)["prediction_id"] for line in lines]


@contextlib.contextmanager
def served(mounts: str, root: Path) -> Iterator[MountedService]:
    service = MountedService(mounts, root)
    try:
        wait_until(lambda: service.get("/readyz")[0] == 200)
        yield service
    finally:
        service.process.terminate()
        service.process.wait(timeout=60)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("mounts", "make_room"),
    [
        (
            'mount -t tmpfs -o size=256k tmpfs "$ROOT" && { cat /dev/zero > "$ROOT/filler" 2>/dev/null || true; }',
            'rm "$ROOT/filler"',
        ),
        (
            'mount --bind "$ROOT" "$ROOT" && mount -o remount,ro,bind "$ROOT"',
            'mount -o remount,rw,bind "$ROOT"',
        ),
    ],
    ids=["full", "read-only"],
)
def test_the_service_predicts_without_a_writable_disk(
    bundle_dir: Path, face: bytes, tmp_path: Path, mounts: str, make_room: str
) -> None:
    """It answers and counts the records that it loses; with room, it writes again."""
    version = build_bento(bundle_dir, {}).version
    with served(mounts, tmp_path) as service:
        before = [abuse.send(service.address, abuse.raw(face))[0] for _ in range(20)]
        wait_until(lambda: service.num_records("lost") == 20)
        written, model = service.num_records("written"), json.loads(service.get("/model")[1])
        lost_ids = service.logged_ids()

        service.run_inside(make_room)
        status, body = abuse.send(service.address, abuse.raw(face))
        wait_until(lambda: service.num_records("written") == 1)
        logged = service.logged_ids()
        lost = service.num_records("lost")

    assert before == [200] * 20
    assert (written, lost_ids, lost) == (0, [], 20)
    assert model["model_version"] == version
    assert status == 200
    assert logged == [json.loads(body)["prediction_id"]]
