"""Send damaged images to a service and kill its workers: count what it loses, and check that it recovers.

Usage: python -m benchmarks.service_faults BUNDLE_DIR IMAGE [--mutants 10000] [--kills 100] [--seed N]

The service runs with two workers. Mutated images must get status 200 or a rejection; memory is read ten times. During
the kills (-9, at random moments) four clients send requests: the predictions that are missing from the log are counted,
no record may be duplicated, and the service must become ready again by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import random
import secrets
import signal
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import psutil

from benchmarks.serving import start_service, used_megabytes
from emotion_assets.core.layout import DataPaths
from tests.service.test_abuse import encode_as_every_format, mutate

SETTLING_S = 12
"""The service returns memory some seconds after it was used."""


class Service:
    """A packed bundle, served with two workers."""

    def __init__(self, bundle_dir: Path, scratch: Path) -> None:
        self.data_dir = scratch / "data"
        self.process, self.port = start_service(bundle_dir, scratch, num_workers=2)
        self.wait_until_ready()

    def wait_until_ready(self) -> float:
        started = time.monotonic()
        while time.monotonic() < started + 90:
            try:
                if self.request("GET", "/readyz")[0] == 200:
                    return time.monotonic() - started
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.2)
        raise SystemExit("The service is not ready.")

    def request(self, method: str, path: str, body: bytes = b"", seconds: float = 20) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            connection.request(method, path, body, {"Content-Type": "image/jpeg"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children(recursive=True)
        alive = []
        for child in children:
            with contextlib.suppress(psutil.Error):
                if "_bentoml_impl.worker.service" in " ".join(child.cmdline()):
                    alive.append(child)
        return alive

    def logged_ids(self) -> list[str]:
        lines = [
            line
            for path in DataPaths(self.data_dir).predictions.rglob("*.jsonl")
            for line in path.read_text().splitlines()
        ]
        ids, num_torn = [], 0
        for line in lines:
            try:
                ids.append(json.loads(line)["prediction_id"])
            except ValueError:
                num_torn += 1
        print(f"| torn lines in the log | {num_torn} |")
        return ids


def try_mutants(service: Service, image: bytes, num: int, rng: random.Random) -> None:
    originals = list(encode_as_every_format(image))
    family = psutil.Process(service.process.pid)
    statuses: Counter[int] = Counter()
    slowest = 0.0
    megabytes: list[float] = []
    for number in range(num):
        if number and number % max(1, num // 10) == 0:
            megabytes.append(used_megabytes(family))
        started = time.perf_counter()
        statuses[service.request("POST", "/predict", mutate(rng.choice(originals), rng))[0]] += 1
        slowest = max(slowest, time.perf_counter() - started)
    print(f"| {num} mutated images, statuses | {dict(sorted(statuses.items()))} |")
    print(f"| slowest response | {slowest:.2f} s |")
    megabytes.append(used_megabytes(family))
    time.sleep(SETTLING_S)
    tenths = ", ".join(f"{each:.0f}" for each in megabytes)
    settled = used_megabytes(family)
    print(f"| memory after each tenth, and {SETTLING_S} s later | {tenths}, {settled:.0f} MB |", flush=True)
    assert set(statuses) <= {200, 400, 413, 415, 422}, statuses


def try_kills(service: Service, image: bytes, num: int, rng: random.Random) -> None:
    predicted: list[str] = []
    statuses: Counter[str] = Counter()
    stop = threading.Event()

    def client() -> None:
        while not stop.is_set():
            try:
                status, body = service.request("POST", "/predict", image)
            except (OSError, http.client.HTTPException) as error:
                statuses[type(error).__name__] += 1
                time.sleep(0.05)
                continue
            statuses[str(status)] += 1
            if status == 200:
                predicted.append(json.loads(body)["prediction_id"])

    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in clients:
        thread.start()
    num_killed = 0
    while num_killed < num:
        time.sleep(rng.uniform(0.05, 1.5))
        workers = service.workers()
        if workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                workers[rng.randrange(len(workers))].send_signal(signal.SIGKILL)
                num_killed += 1
    seconds = service.wait_until_ready()
    stop.set()
    for thread in clients:
        thread.join()
    time.sleep(3)
    ids = service.logged_ids()
    lost = len(set(predicted) - set(ids))
    print(f"| {num} kills, statuses and errors at the clients | {dict(statuses)} |")
    print(f"| predictions, of them not in the log | {len(predicted)}, {lost} ({lost / num:.2f} a kill) |")
    print(f"| duplicate records | {len(ids) - len(set(ids))} |")
    print(f"| ready again after the last kill | {seconds:.1f} s, {len(service.workers())} workers |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle_dir", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    image = options.image.read_bytes()
    print(f"| seed | {options.seed} |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        service = Service(options.bundle_dir.resolve(), Path(folder))
        try:
            if options.mutants:
                try_mutants(service, image, options.mutants, rng)
            if options.kills:
                try_kills(service, image, options.kills, rng)
        finally:
            service.process.terminate()
            service.process.wait(timeout=60)


if __name__ == "__main__":
    main()
