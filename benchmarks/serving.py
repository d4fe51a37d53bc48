"""Compare requests per second, latency and CPU of the service with other ways to serve the same network.

Usage: python -m benchmarks.serving BUNDLE_DIR IMAGE [--seconds 4] [--rounds 3] [--minutes-of-load 10]

Every server has one worker; all are up at once and take turns. The load comes over persistent connections, each
sending its next request when it has a response. With --minutes-of-load our own service is then loaded with 8
connections, and its memory is measured. Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

BIN = Path(sys.executable).parent
CONNECTIONS = (1, 8, 32)
NAMES = {
    "ours": "this service",
    "a": "FastAPI + torch",
    "b": "the same, weights loaded for each request",
    "c": "bare Starlette + onnxruntime, float32",
    "c8": "the same with the graph that the service runs",
    "d": "bare Starlette, constant response",
}


@dataclass
class Measured:
    """Latencies, statuses and cost of a few seconds of load."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    wall: float = 0.0
    cpu: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.seconds) / self.wall

    def percentile(self, fraction: float) -> float:
        return 1000 * sorted(self.seconds)[int(fraction * (len(self.seconds) - 1))]


def encode_request(image: bytes) -> bytes:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="x.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
        + image
        + b"\r\n--b--\r\n"
    )
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    return head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


async def client(port: int, request: bytes, until: float, measured: Measured) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while time.perf_counter() < until:
            started = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            measured.statuses[int(head[9:12])] += 1
            measured.seconds.append(time.perf_counter() - started)
    finally:
        writer.close()


def used_cpu_seconds(process: psutil.Process) -> float:
    family = [process, *process.children(recursive=True)]
    return sum(sum(member.cpu_times()[:2]) for member in family)


def used_megabytes(process: psutil.Process) -> float:
    family = [process, *process.children(recursive=True)]
    return sum(member.memory_full_info().pss for member in family) / 1e6


def load(port: int, request: bytes, connections: int, seconds: float, process: psutil.Process) -> Measured:
    measured = Measured()

    async def all_clients() -> None:
        until = time.perf_counter() + seconds
        await asyncio.gather(*(client(port, request, until, measured) for _ in range(connections)))

    cpu, started = used_cpu_seconds(process), time.perf_counter()
    asyncio.run(all_clients())
    measured.wall, measured.cpu = time.perf_counter() - started, used_cpu_seconds(process) - cpu
    return measured


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_service(bundle_dir: Path, scratch: Path, num_workers: int) -> tuple[subprocess.Popen[bytes], int]:
    """Pack a bundle into a store below `scratch` and serve it; return the process and its port."""
    environment = os.environ | {
        "BENTOML_HOME": str(scratch / "bentoml"),
        "EMOTION_DATA_DIR": str(scratch / "data"),
        "EMOTION_WORKERS": str(num_workers),
        "OMP_NUM_THREADS": "1",
        "BENTOML_DO_NOT_TRACK": "True",
    }
    code = (
        "import sys; from pathlib import Path; from emotion_assets.steps.packing.bento import build_bento;"
        "build_bento(Path(sys.argv[1]), {})"
    )
    subprocess.run([sys.executable, "-c", code, str(bundle_dir)], env=environment, check=True, capture_output=True)
    return serve_bento(environment)


def serve_bento(environment: dict[str, str], working_dir: Path | None = None) -> tuple[subprocess.Popen[bytes], int]:
    """Serve the latest bento of the store that the environment names; return the process and its port."""
    port = free_port()
    command = [str(BIN / "bentoml"), "serve", "emotion_service:latest", "--host", "127.0.0.1", "--port", str(port)]
    return _start_quietly(command, environment, working_dir), port


def start(name: str, bundle_dir: Path, scratch: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start one of NAMES with one worker; return the process and its port."""
    if name == "ours":
        return start_service(bundle_dir, scratch, num_workers=1)
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.serving_peers", name, str(bundle_dir), str(port)]
    return _start_quietly(command, os.environ | {"OMP_NUM_THREADS": "1"}), port


def _start_quietly(
    command: list[str], environment: dict[str, str], working_dir: Path | None = None
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, env=environment, cwd=working_dir, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def wait_until_ready(port: int, request: bytes, process: psutil.Process) -> None:
    for _ in range(120):
        try:
            if load(port, request, 1, 0.2, process).statuses[200]:
                return
        except (OSError, asyncio.IncompleteReadError):
            pass
        time.sleep(0.5)
    raise SystemExit(f"The server on port {port} does not respond.")


def soak(port: int, request: bytes, process: psutil.Process, minutes: float) -> None:
    print("\n| minute of load, 8 connections | requests/s | not 200 | memory MB |\n|---|---|---|---|")
    print(f"| before | | | {used_megabytes(process):.0f} |")
    for minute in range(round(minutes)):
        measured = load(port, request, 8, 60, process)
        num_failed = len(measured.seconds) - measured.statuses[200]
        print(f"| {minute + 1} | {measured.rate:.0f} | {num_failed} | {used_megabytes(process):.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle_dir", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes-of-load", type=float, default=0)
    options = parser.parse_args()
    request = encode_request(options.image.read_bytes())
    servers: dict[str, tuple[subprocess.Popen[bytes], int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name in NAMES:
                servers[name] = start(name, options.bundle_dir.resolve(), Path(folder))
            family = {name: psutil.Process(process.pid) for name, (process, _) in servers.items()}
            for name, (_, port) in servers.items():
                wait_until_ready(port, request, family[name])
            compare(servers, family, request, options.rounds, options.seconds)
            if options.minutes_of_load:
                soak(servers["ours"][1], request, family["ours"], options.minutes_of_load)
        finally:
            for process, _ in servers.values():
                process.terminate()
            for process, _ in servers.values():
                process.wait(timeout=60)


def compare(
    servers: dict[str, tuple[subprocess.Popen[bytes], int]],
    family: dict[str, psutil.Process],
    request: bytes,
    rounds: int,
    seconds: float,
) -> None:
    for connections in CONNECTIONS:
        results: dict[str, list[Measured]] = {name: [] for name in NAMES}
        for _ in range(rounds):
            for name, (_, port) in servers.items():
                results[name].append(load(port, request, connections, seconds, family[name]))
        rates = {name: statistics.median(measured.rate for measured in results[name]) for name in NAMES}
        cpu = {
            name: statistics.median(1000 * measured.cpu / len(measured.seconds) for measured in results[name])
            for name in NAMES
        }
        print(f"\n| {connections} connections | requests/s | ours / this side | CPU ms | p50 ms | p99 ms | not 200 |")
        print("|---|---|---|---|---|---|---|")
        for name, title in NAMES.items():
            middle = [
                statistics.median(measured.percentile(fraction) for measured in results[name])
                for fraction in (0.5, 0.99)
            ]
            num_failed = sum(len(measured.seconds) - measured.statuses[200] for measured in results[name])
            print(
                f"| {title} | {rates[name]:.0f} | {rates['ours'] / rates[name]:.2f}× | {cpu[name]:.2f} | "
                f"{middle[0]:.1f} | {middle[1]:.1f} | {num_failed} |",
                flush=True,
            )
        ratios = f"{cpu['ours'] / cpu['c']:.2f} in float32, {cpu['ours'] / cpu['c8']:.2f} with the same graph"
        print(f"CPU per request, ours / bare Starlette + onnxruntime: {ratios}")


if __name__ == "__main__":
    main()
