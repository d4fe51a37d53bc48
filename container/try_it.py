"""Build the image of the latest bento and test it; needs root, buildah, podman and runc.

Usage: python -m container.try_it IMAGE [--base-from-debian] [--sbom FILE]

The container must start within ten seconds, predict, run as an unprivileged user on a read-only file system, contain no
compiler, no torch and no Dagster, detect and replace a dead worker, and stop on SIGTERM. Another one with one processor
and 512 MB must answer all requests of `tests.abuse`.

--base-from-debian makes the base image on this machine first, for machines that reach no registry; --sbom writes the
Python packages of the image as a CycloneDX document.
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

from tests import abuse

HERE = Path(__file__).parent
# Requests to this machine never go through http_proxy.
LOOPBACK = urllib.request.build_opener(urllib.request.ProxyHandler({}))
BIN = Path(sys.executable).parent
BASE = "docker.io/library/python:3.11-slim"
HEALTH_CHECK = "/home/bentoml/bento/src/emotion_service/healthcheck.py"
MAX_MEGABYTES, MAX_START_SECONDS = 450, 10
UNWANTED = ("torch", "dagster", "lightning", "pytorch_lightning", "pandas", "evidently")
SMALL = ("--cpus=1", "--memory=512m", "--memory-swap=512m")
PACKAGES = """
from importlib.metadata import distributions
for each in distributions():
    print(f"{each.name}=={each.version}")
"""
LIMITS = [f"--ulimit={kind}=8192:8192" for kind in ("nofile", "nproc")]
COMPILERS = ("gcc", "cc", "g++", "clang", "ld", "make", "uv")


def run_command(*command: object) -> str:
    done = subprocess.run([str(word) for word in command], check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout.strip()


def build(tag: str) -> str:
    """Build the image as one layer, as builders in clusters do, and return its name."""
    name = f"localhost/{tag}"
    started = time.monotonic()
    environment = os.environ | {"BUILDAH_ISOLATION": "chroot", "BUILDAH_LAYERS": "false"}
    command = [BIN / "bentoml", "containerize", tag, "--backend", "buildah", "-t", name, "--opt", "format=docker"]
    done = subprocess.run(list(map(str, command)), check=False, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bentoml containerize failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    print(f"built {name} in {time.monotonic() - started:.0f} s")
    return name


def size_megabytes(image: str) -> float:
    return int(run_command("podman", "image", "inspect", image, "--format", "{{.Size}}")) / 1e6


class Container:
    """A hardened container of the image."""

    def __init__(self, image: str, data_dir: Path, *more: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        settings = {
            "BENTOML_HOME": "/tmp/bentoml",
            "BENTOML_DO_NOT_TRACK": "True",
            "BENTOML_PORT": str(port),
            "EMOTION_DATA_DIR": "/data",
        }
        hardening = ["--read-only", "--tmpfs=/tmp", "--cap-drop=all", "--security-opt=no-new-privileges"]
        variables = [f"--env={key}={value}" for key, value in settings.items()]
        serve = ["serve", "--host", "127.0.0.1", "--port", str(port)]
        self.id = run_command(
            *("podman", "--runtime=runc", "run", "--detach", "--network=host", *LIMITS, *hardening, *variables),
            *(f"--volume={data_dir}:/data", *more, image, *serve),
        )

    def run(self, *command: str) -> str:
        return run_command("podman", "--runtime=runc", "exec", self.id, *command)

    def find_problem(self) -> str:
        """Return what the health check reports, or an empty string."""
        done = subprocess.run(
            ["podman", "--runtime=runc", "exec", self.id, "python3", HEALTH_CHECK],
            check=False,
            capture_output=True,
            text=True,
        )
        return done.stderr.strip() if done.returncode else ""

    def is_ready(self) -> bool:
        try:
            with LOOPBACK.open(f"{self.address}/readyz", timeout=2) as response:
                return bool(response.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def workers(self) -> list[int]:
        """Return the process ids of the workers on the host."""
        top = run_command("podman", "top", self.id, "hpid", "args").splitlines()[1:]
        return [int(line.split()[0]) for line in top if "_bentoml_impl.worker" in line or "worker/service" in line]

    def remove(self) -> None:
        subprocess.run(["podman", "rm", "--force", self.id], check=False, capture_output=True)


@contextlib.contextmanager
def running(image: str, data_dir: Path, *more: str) -> Iterator[Container]:
    container = Container(image, data_dir, *more)
    try:
        yield container
    finally:
        container.remove()


def wait(event: str, condition: Any, seconds: float) -> float:
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            sys.exit(f"FAILED: {event}, not within {seconds:g} s")
        time.sleep(0.1)
    return time.monotonic() - started


def check(claim: str, holds: object) -> None:
    if not holds:
        sys.exit(f"FAILED: {claim}")
    print(f"ok: {claim}")


def predict(address: str, image: bytes) -> dict[str, Any]:
    request = urllib.request.Request(f"{address}/predict", image, {"Content-Type": "image/jpeg"})
    with LOOPBACK.open(request, timeout=20) as response:
        return dict(json.load(response))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("--base-from-debian", action="store_true")
    parser.add_argument("--sbom", type=Path)
    options = parser.parse_args()
    images = run_command("buildah", "images", "--format", "{{.Name}}:{{.Tag}}").splitlines()
    if options.base_from_debian and BASE not in images:
        print(run_command(HERE / "make_base.sh", BASE))
    tag = str(bentoml.get("emotion_service:latest").tag)
    image = build(tag)
    size = size_megabytes(image)
    check(f"the image has {size:.0f} MB unpacked, at most {MAX_MEGABYTES}", size <= MAX_MEGABYTES)
    stat = ("podman", "--runtime=runc", "run", "--rm", "--network=host", *LIMITS, "--entrypoint=stat", image)
    owner = run_command(*stat, "-c", "%U", "/data")
    if options.sbom:
        write_sbom(image, options.sbom)
    check("a new volume will belong to the unprivileged user, as /data does", owner == "bentoml")

    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder)
        data_dir.chmod(0o777)
        with running(image, data_dir, "--env=EMOTION_WORKERS=2") as container:
            test_container(container, tag.partition(":")[2], options.image.read_bytes())
            started = time.monotonic()
            run_command("podman", "stop", "--time=30", container.id)
            check(f"it stops on SIGTERM, in {time.monotonic() - started:.1f} s", time.monotonic() - started < 29)
        records = [line for path in data_dir.rglob("*.jsonl") for line in path.read_text().splitlines()]
        check("each prediction is logged in the volume", len(records) == 2)
        with running(image, data_dir, *SMALL) as container:
            test_small_container(container, options.image.read_bytes())


def write_sbom(image: str, path: Path) -> None:
    """List what is installed in the image, not what was asked for."""
    python = (
        "podman",
        "--runtime=runc",
        "run",
        "--rm",
        "--network=host",
        *LIMITS,
        "--entrypoint=/app/.venv/bin/python",
    )
    packages = run_command(*python, image, "-c", PACKAGES)
    command = [BIN / "cyclonedx-py", "requirements", "-", "--output-format", "JSON", "--output-file", path]
    subprocess.run(list(map(str, command)), check=True, input=packages, text=True)
    print(f"wrote {len(packages.splitlines())} packages to {path}")


def test_small_container(container: Container, image: bytes) -> None:
    seconds = wait("the small container is ready", container.is_ready, 60)
    check(f"with one processor and 512 MB it is ready after {seconds:.1f} s", seconds <= 2 * MAX_START_SECONDS)
    check("it has one worker", len(container.workers()) == 1)
    worker = container.workers()
    cases = list(abuse.cases(image))
    wrong = [case.name for case in cases if abuse.send(container.address, case.raw)[0] not in case.statuses]
    check(f"it answers {len(cases)} abusive requests as specified{f', but {wrong}' if wrong else ''}", not wrong)
    predict(container.address, image)
    check("and the same worker predicts on", container.workers() == worker)


def test_container(container: Container, version: str, image: bytes) -> None:
    seconds = wait("it is ready", container.is_ready, 60)
    check(f"ready {seconds:.1f} s after its start, at most {MAX_START_SECONDS}", seconds <= MAX_START_SECONDS)
    prediction = predict(container.address, image)
    check(f"it predicts {prediction['emotion']} with {version}", prediction["model_version"] == version)
    check("it runs as an unprivileged user", int(container.run("id", "-u")) != 0)
    touched = container.run("sh", "-c", "touch /home/bentoml/bento/x /usr/x /app/x 2>&1 || true")
    check("its file system is read-only", touched.count("Read-only") == 3)
    packages = container.run("sh", "-c", "ls /app/.venv/lib/python3*/site-packages").lower().split()
    check(f"none of {', '.join(UNWANTED)}", not set(UNWANTED) & set(packages))
    # One at a time: the shell of a slim image finds only the first name of several.
    found = container.run("sh", "-c", f"for name in sh {' '.join(COMPILERS)}; do command -v $name; done; true").split()
    check(f"none of {', '.join(COMPILERS)}", [Path(path).name for path in found] == ["sh"])
    wait("its health check passes", lambda: not container.find_problem(), 20)
    workers = container.workers()
    check("two workers", len(workers) == 2)
    os.kill(workers[0], 9)
    detected: list[str] = []

    def is_detected() -> bool:
        detected[:] = [container.find_problem()]
        return bool(detected[0])

    wait("the health check detects a killed worker", is_detected, 20)
    print(f"ok: the health check detects a killed worker: {detected[0]}")
    seconds = wait("the worker is replaced", lambda: not container.find_problem(), 60)
    check(f"a new worker serves {seconds:.1f} s later", len(container.workers()) == 2)
    predict(container.address, image)


if __name__ == "__main__":
    main()
