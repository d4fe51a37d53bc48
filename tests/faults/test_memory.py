"""Little memory and few processors, by the kernel's own limits."""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from emotion_assets.steps.packing.bento import build_bento
from tests import abuse

CGROUPS = Path("/sys/fs/cgroup")
BIN = Path(sys.executable).parent
MEMORY_BYTES = 512 * 2**20
TRAINING = """
import sys
from pathlib import Path
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.training.config import training_config
from emotion_assets.steps.training.run import train_bundle
paths = DataPaths(Path(sys.argv[1]))
train_bundle(paths, training_config("quick", epochs=1, width=8, batch_size=32), code_version="x")
"""


@pytest.fixture
def control_group() -> Iterator[list[Path]]:
    """Groups with one processor and 512 MB, as a container has them; version 1 or 2."""
    name = f"emotion-test-{os.getpid()}"
    if (CGROUPS / "cgroup.controllers").exists():
        groups = [CGROUPS / name]
        limits = {groups[0] / "cpu.max": "100000 100000", groups[0] / "memory.max": str(MEMORY_BYTES)}
    else:
        lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
        own = {kind: path for _, kinds, path in lines for kind in kinds.split(",")}
        groups = [CGROUPS / kind / own.get(kind, "/").strip("/") / name for kind in ("cpu", "memory")]
        limits = {
            groups[0] / "cpu.cfs_quota_us": "100000",
            groups[1] / "memory.limit_in_bytes": str(MEMORY_BYTES),
        }
    try:
        for group in groups:
            group.mkdir()
        for path, text in limits.items():
            path.write_text(text)
    except OSError as error:
        remove(groups)
        pytest.skip(f"this user may not limit a control group ({error}): run as root, in a container --privileged")
    yield groups
    remove(groups)


def remove(groups: list[Path]) -> None:
    """Remove control groups once their processes have ended."""
    for group in groups:
        for _ in range(100):
            with contextlib.suppress(OSError):
                group.rmdir()
            if not group.exists():
                break
            time.sleep(0.1)


@contextlib.contextmanager
def unfinished_uploads(port: int, count: int) -> Iterator[None]:
    """Hold uploads of 10 MiB whose last byte does not come; those that are too many are answered and closed."""
    size = 10 * 2**20
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {size}\r\n\r\n".encode()
    with contextlib.ExitStack() as connections:
        for _ in range(count):
            connection = connections.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            with contextlib.suppress(OSError):
                connection.sendall(head + b"x" * (size - 1))
        yield


def test_the_service_fits_into_a_small_container(
    bundle_dir: Path, face: bytes, tmp_path: Path, control_group: list[Path]
) -> None:
    """One worker, one large image at a time, and every abuse is answered without the kernel killing anything."""
    build_bento(bundle_dir, {})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    join = " && ".join(f'echo $$ > "{group / "cgroup.procs"}"' for group in control_group)
    serve = f'exec "{BIN / "bentoml"}" serve emotion_service:latest --host 127.0.0.1 --port {port}'
    address = f"http://127.0.0.1:{port}"
    log_path = tmp_path / "service.log"
    environment = {name: value for name, value in os.environ.items() if name != "EMOTION_WORKERS"}
    with (
        log_path.open("w") as log,
        subprocess.Popen(
            ["sh", "-c", f"{join} && {serve}"],
            env=environment | {"EMOTION_DATA_DIR": str(tmp_path)},
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            wrong = []
            for _ in range(120):
                with contextlib.suppress(OSError):
                    if abuse.send(address, abuse.http("GET", "/readyz"))[0] == 200:
                        break
                time.sleep(0.5)
            for case in abuse.cases(face):
                status, body = abuse.send(address, case.raw)
                if status not in case.statuses:
                    wrong.append((case.name, status, body[:200]))
            png = io.BytesIO()
            Image.new("RGB", (8000, 5000)).save(png, "PNG")
            with unfinished_uploads(port, 25):
                large, _ = abuse.send(address, abuse.raw(png.getvalue(), "image/png"))
            healthy, _ = abuse.send(address, abuse.raw(face))
        finally:
            process.terminate()
    text = log_path.read_text()

    assert (large, healthy) == (200, 200)
    assert wrong == []
    assert text.count("Service emotion_service initialized") == 1
    assert "512 MB of memory are allowed: each of 1 workers handles" in text


def test_training_without_memory_fails_clearly_and_resumes(drawn_root: Path, tmp_path: Path) -> None:
    """The limit is the address space; the same command with more memory succeeds."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "splits").symlink_to(drawn_root / "splits")

    def run(*limit: str) -> subprocess.CompletedProcess[str]:
        command = [*limit, sys.executable, "-W", "ignore", "-c", TRAINING, str(root)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    small = run("prlimit", "--as=1300000000")
    manifests = list(root.glob("models/*/manifest.json"))
    large = run()

    assert small.returncode != 0
    message = small.stderr.strip().splitlines()[-1]
    assert re.search(r"memory|alloc|map segment|create a primitive", message, re.IGNORECASE), small.stderr[-1000:]
    assert manifests == []
    assert large.returncode == 0, large.stderr[-2000:]
