"""Tell a container's health check whether the service is well: `python health.py`, exit status 0 or 1.

Well means: it is ready, and as many workers serve a model as were asked for. `/readyz` alone is answered by any
worker that is left. Only the standard library is imported, because this starts every few seconds.
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request

_TIMEOUT_SECONDS = 5


def problem(address: str, num_workers: int) -> str:
    """Return what is wrong with the service at `address`, or nothing."""
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=_TIMEOUT_SECONDS):  # noqa: S310 -- our own address
            pass
        with urllib.request.urlopen(f"{address}/metrics", timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
            lines = answer.read().decode().splitlines()
    except (OSError, urllib.error.URLError) as error:
        return f"{address} does not answer: {error}"
    alive = sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("emotion_model_workers{"))
    if alive < num_workers:
        return f"{alive:g} of {num_workers} workers serve a model"
    return ""


if __name__ == "__main__":
    port = os.environ.get("BENTOML_PORT", os.environ.get("PORT", "3000"))
    found = problem(f"http://127.0.0.1:{port}", int(float(os.environ.get("EMOTION_WORKERS", os.cpu_count() or 1))))
    if found:
        sys.stderr.write(found + "\n")
    sys.exit(bool(found))
