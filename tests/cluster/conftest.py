from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emotion_assets.resources import PipelineSettings


@pytest.fixture
def local(drawn_root: Path, tmp_path: Path) -> PipelineSettings:
    """A laptop with labelled images and nothing else."""
    shutil.copytree(drawn_root / "raw", tmp_path / "laptop" / "raw")
    return PipelineSettings(data_dir=tmp_path / "laptop")


@pytest.fixture
def hosts(
    local: PipelineSettings, s3_root: str, tmp_path: Path, upload: Callable[[Path], None]
) -> list[PipelineSettings]:
    """Two hosts with one data root, which has the same images."""
    upload(local.data_dir)
    return [PipelineSettings(data_dir=s3_root, cache_dir=tmp_path / f"host{number}") for number in range(2)]


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a new PostgreSQL server on this machine."""
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"))  # Debian's; not on PATH
    user = "postgres" if os.geteuid() == 0 else None  # the server refuses root
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    if user:
        shutil.chown(folder, user, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    initialize = [binaries / "initdb", "-D", folder / "data", "-U", "dagster", "-A", "trust", "--no-sync"]
    subprocess.run(initialize, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    serve = [binaries / "postgres", "-D", folder / "data", "-h", "127.0.0.1", "-p", str(port), "-k", folder]
    with subprocess.Popen(serve, user=user, cwd=folder, stderr=subprocess.DEVNULL) as server:
        ready = [binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        for _ in range(100):
            if subprocess.run(ready, check=False).returncode == 0:
                break
            time.sleep(0.2)
        yield f"postgresql+psycopg2://dagster@127.0.0.1:{port}/postgres"
        server.terminate()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def instance_home(postgres: str, tmp_path: Path) -> Path:
    """A folder for DAGSTER_HOME whose history is on that server."""
    home = tmp_path / "dagster_home"
    home.mkdir()
    (home / "dagster.yaml").write_text(
        f"storage: {{postgres: {{postgres_url: '{postgres}'}}}}\ntelemetry: {{enabled: false}}\n"
    )
    return home
