"""The bento, served as people serve it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx


@contextlib.contextmanager
def serving(home: Path, environment: Mapping[str, str]) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Serve the latest bento from the folder `home`; yield address and process once it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).parent / "bentoml"), "serve", "emotion_service:latest"]
    with (
        (home / "service.log").open("w") as log,
        subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)], cwd=home, env=environment, stdout=log, stderr=log
        ) as process,
    ):
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(240):
                if process.poll() is not None or is_ready(address):
                    break
                time.sleep(0.5)
            assert is_ready(address), (home / "service.log").read_text()[-5000:]
            yield address, process
        finally:
            process.terminate()
            process.wait(timeout=60)


def is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
