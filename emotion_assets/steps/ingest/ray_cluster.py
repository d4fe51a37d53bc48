"""Connect to a Ray cluster, which runs steps on several hosts."""

from __future__ import annotations

import logging
import os
import re
import socket
from typing import Any, Final

from emotion_assets.core.errors import UnusableDataError

_SECONDS: Final = 10.0
_HOST_AND_PORT: Final = re.compile(r"(.+):(\d+)")


def connect() -> Any:
    """Return the module `ray`, connected to the cluster that RAY_ADDRESS names, or else to one on this host.

    Raises:
        UnusableDataError: Ray is not installed, or the cluster does not respond or has no processors.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise UnusableDataError(
            "The engine `ray` is not installed: pip install -e '.[cluster]' -c constraints.txt. Or choose the engine "
            "`local`."
        ) from error
    if not ray.is_initialized():
        _require_response(os.environ.get("RAY_ADDRESS", ""))
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    require_processors(ray, 1)
    return ray


def require_processors(ray: Any, count: int) -> None:
    """Fail at once: Ray itself would wait for them without a word.

    Raises:
        UnusableDataError: the cluster has fewer processors.
    """
    found = int(ray.cluster_resources().get("CPU", 0))
    if found < count:
        raise UnusableDataError(
            f"The Ray cluster has {found} processors, and {count} are needed. Add nodes that have processors."
        )


def _require_response(address: str) -> None:
    """Fail at once: Ray itself would try for nine minutes."""
    if address.startswith("ray://"):
        raise UnusableDataError(
            f"RAY_ADDRESS is {address}, but steps must run on a node of the cluster, not as a client of it. Start one "
            "here, `ray start --address=HOST:PORT --num-cpus=0`, and set RAY_ADDRESS=HOST:PORT."
        )
    found = _HOST_AND_PORT.fullmatch(address)
    if not found:
        return  # none, or `auto`
    try:
        socket.create_connection((found[1], int(found[2])), _SECONDS).close()
    except OSError as error:
        raise UnusableDataError(
            f"The Ray cluster at {address} does not respond ({error.strerror or error}). Correct RAY_ADDRESS, or "
            "choose the engine `local`."
        ) from error
