"""Build the image of the latest bento and prove what it promises; needs root, buildah, podman and runc.

Usage: python container/try_it.py PICTURE [--base-from-debian]

It starts within ten seconds, answers, runs as a plain user on a read-only file system, carries no compiler, no torch
and no Dagster, notices a dead worker and gets it back, and stops when told. With --base-from-debian the base image is
made on this machine first, where no registry can be reached.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bentoml

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
BASE = "docker.io/library/python:3.11-slim"
HEALTH = "/home/bentoml/bento/src/emotion_service/health.py"
MAX_MEGABYTES, MAX_START_SECONDS = 450, 10
UNWANTED = ("torch", "dagster", "lightning", "pandas", "evidently")
LIMITS = [f"--ulimit={kind}=8192:8192" for kind in ("nofile", "nproc")]
COMPILERS = ("gcc", "cc", "g++", "clang", "ld", "make", "uv")


def output_of(*command: object) -> str:
    done = subprocess.run([str(word) for word in command], check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout.strip()


def build(tag: str) -> str:
    """Build the image as one layer, the way a cluster's builder does; return its name."""
    name = f"localhost/{tag}"
    started = time.monotonic()
    environment = os.environ | {"BUILDAH_ISOLATION": "chroot", "BUILDAH_LAYERS": "false"}
    command = [BIN / "bentoml", "containerize", tag, "--backend", "buildah", "-t", name, "--opt", "format=docker"]
    done = subprocess.run(list(map(str, command)), check=False, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bentoml containerize failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    print(f"built {name} in {time.monotonic() - started:.0f} s")
    return name


def megabytes(image: str) -> float:
    return int(output_of("podman", "image", "inspect", image, "--format", "{{.Size}}")) / 1e6


class Container:
    """A hardened container of the image, removed at the end."""

    def __init__(self, image: str, data_dir: Path, *more: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        settings = {
            "BENTOML_HOME": "/tmp/bentoml",
            "BENTOML_DO_NOT_TRACK": "True",
            "BENTOML_PORT": str(port),
            "EMOTION_WORKERS": "2",
            "EMOTION_DATA_DIR": "/data",
        }
        hardening = ["--read-only", "--tmpfs=/tmp", "--cap-drop=all", "--security-opt=no-new-privileges"]
        variables = [f"--env={key}={value}" for key, value in settings.items()]
        serve = ["serve", "--host", "127.0.0.1", "--port", str(port)]
        self.id = output_of(
            *("podman", "--runtime=runc", "run", "--detach", "--network=host", *LIMITS, *hardening, *variables),
            *(f"--volume={data_dir}:/data", *more, image, *serve),
        )

    def run(self, *command: str) -> str:
        return output_of("podman", "--runtime=runc", "exec", self.id, *command)

    def health(self) -> str:
        done = subprocess.run(
            ["podman", "--runtime=runc", "exec", self.id, "python3", HEALTH],
            check=False,
            capture_output=True,
            text=True,
        )
        return done.stderr.strip() if done.returncode else ""

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def workers(self) -> list[int]:
        """Process ids, on the host, of the children that answer."""
        top = output_of("podman", "top", self.id, "hpid", "args").splitlines()[1:]
        return [int(line.split()[0]) for line in top if "_bentoml_impl.worker" in line or "worker/service" in line]

    def remove(self) -> None:
        subprocess.run(["podman", "rm", "--force", self.id], check=False, capture_output=True)


@contextlib.contextmanager
def running(image: str, data_dir: Path) -> Iterator[Container]:
    container = Container(image, data_dir)
    try:
        yield container
    finally:
        container.remove()


def wait(what: str, condition: Any, seconds: float) -> float:
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            sys.exit(f"FAILED: {what}, not within {seconds:g} s")
        time.sleep(0.1)
    return time.monotonic() - started


def check(what: str, holds: object) -> None:
    if not holds:
        sys.exit(f"FAILED: {what}")
    print(f"ok: {what}")


def ask(address: str, image: bytes) -> dict[str, Any]:
    request = urllib.request.Request(f"{address}/predict", image, {"Content-Type": "image/jpeg"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return dict(json.load(answer))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("--base-from-debian", action="store_true")
    options = parser.parse_args()
    images = output_of("buildah", "images", "--format", "{{.Name}}:{{.Tag}}").splitlines()
    if options.base_from_debian and BASE not in images:
        print(output_of(HERE / "make_base.sh", BASE))
    tag = str(bentoml.get("emotion_service:latest").tag)
    image = build(tag)
    size = megabytes(image)
    check(f"the image has {size:.0f} MB unpacked, at most {MAX_MEGABYTES}", size <= MAX_MEGABYTES)
    look = ("podman", "--runtime=runc", "run", "--rm", "--network=host", *LIMITS, "--entrypoint=stat", image)
    owner = output_of(*look, "-c", "%U", "/data")
    check("a new volume will be the plain user's, as /data is", owner == "bentoml")

    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder)
        data_dir.chmod(0o777)
        with running(image, data_dir) as container:
            try_out(container, tag.partition(":")[2], options.image.read_bytes())
            started = time.monotonic()
            output_of("podman", "stop", "--time=30", container.id)
            check(f"it stops by itself, in {time.monotonic() - started:.1f} s", time.monotonic() - started < 29)
        records = [line for path in data_dir.rglob("*.jsonl") for line in path.read_text().splitlines()]
        check("each answer has its record in the volume", len(records) == 2)


def try_out(container: Container, version: str, image: bytes) -> None:
    seconds = wait("it is ready", container.is_ready, 60)
    check(f"ready {seconds:.1f} s after its start, at most {MAX_START_SECONDS}", seconds <= MAX_START_SECONDS)
    answer = ask(container.address, image)
    check(f"it answers: {answer['emotion']}, model {version}", answer["model_version"] == version)
    check("it runs as a plain user", int(container.run("id", "-u")) != 0)
    touched = container.run("sh", "-c", "touch /home/bentoml/bento/x /usr/x /app/x 2>&1 || true")
    check("its file system is read-only", touched.count("Read-only") == 3)
    packages = container.run("sh", "-c", "ls /app/.venv/lib/python3*/site-packages").lower().split()
    check(f"none of {', '.join(UNWANTED)}", not set(UNWANTED) & set(packages))
    # One at a time: the shell of a slim image looks for the first name only.
    found = container.run("sh", "-c", f"for name in sh {' '.join(COMPILERS)}; do command -v $name; done; true").split()
    check(f"none of {', '.join(COMPILERS)}", [Path(path).name for path in found] == ["sh"])
    wait("its health check passes", lambda: not container.health(), 20)
    workers = container.workers()
    check("two workers", len(workers) == 2)
    os.kill(workers[0], 9)
    noticed: list[str] = []

    def is_noticed() -> bool:
        noticed[:] = [container.health()]
        return bool(noticed[0])

    wait("the health check notices a killed worker", is_noticed, 20)
    print(f"ok: the health check notices a killed worker: {noticed[0]}")
    seconds = wait("the worker comes back", lambda: not container.health(), 60)
    check(f"a new worker serves {seconds:.1f} s later", len(container.workers()) == 2)
    ask(container.address, image)


if __name__ == "__main__":
    main()
