"""Health check of the container: `python healthcheck.py` exits with status 0 if the service is healthy, else 1.

Healthy means that as many workers serve a model as were configured; `/readyz` alone passes as long as one is left.
Only light modules are imported, because this starts every few seconds.
"""

from __future__ import annotations

import os
import sys
import urllib.request
from pathlib import Path

_TIMEOUT_SECONDS = 5
# The request must not go through http_proxy: it is to this machine.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def find_problem(address: str, num_workers: int) -> str:
    """Return what is wrong with the service at `address`, or an empty string."""
    try:
        with _opener.open(f"{address}/readyz", timeout=_TIMEOUT_SECONDS):
            pass
        with _opener.open(f"{address}/metrics", timeout=_TIMEOUT_SECONDS) as response:
            lines = response.read().decode().splitlines()
    except OSError as error:
        return f"{address} does not respond: {error}"
    num_serving = sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("emotion_model_workers{"))
    return "" if num_serving >= num_workers else f"{num_serving:g} of {num_workers} workers serve a model"


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from emotion_service.memory import default_workers

    port = os.environ.get("BENTOML_PORT", os.environ.get("PORT", "3000"))
    workers = os.environ.get("EMOTION_WORKERS") or default_workers()
    sys.exit(find_problem(f"http://127.0.0.1:{port}", int(workers)) or 0)
