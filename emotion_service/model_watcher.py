"""Follow the champion: take a newly accepted model while requests are answered, or keep the old one.

The pipeline's `models/champion.json` is replaced in one step, so it is either the old or the new one. A
container has no such file and serves the version that it was built with.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from emotion_assets.core.bundle import is_version
from emotion_assets.core.layout import CHAMPION_NAME

POLL_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 60.0

_logger = logging.getLogger("emotion_service.model_watcher")


class ModelWatcher:
    """Looks every two seconds which version is accepted, and hands a new one to `load`."""

    def __init__(self, models_dir: Path, served: Callable[[], str], load: Callable[[Path], None]) -> None:
        """Watch `models_dir`.

        Args:
            models_dir: holds `champion.json` and a folder for each version.
            served: tells the version that answers now.
            load: loads a bundle and serves it from then on; raises if it must not be served.
        """
        self._models_dir, self._served, self._load = models_dir, served, load
        self._rejected, self._next_try = "", 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="champion-watch", daemon=True)

    def start(self) -> None:
        """Look once now, then in the background."""
        self.poll()
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()

    def poll(self) -> None:
        """Serve the accepted version if it is another one than now; one that fails is tried again every minute."""
        version = champion_version(self._models_dir)
        if version is None or version == self._served():
            return
        if version == self._rejected and time.monotonic() < self._next_try:
            return
        try:
            self._load(self._models_dir / version)
        except Exception as error:  # noqa: BLE001 -- whatever is wrong with it, what is served must continue
            if version != self._rejected:
                _logger.error("Model %s is not served, %s stays: %s", version, self._served(), error)  # noqa: TRY400
            # It may only be late: its folder may still be on its way.
            self._rejected, self._next_try = version, time.monotonic() + RETRY_SECONDS
        else:
            self._rejected = ""
            _logger.info("Model %s answers from now on", version)

    def _run(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            try:
                self.poll()
            except Exception:
                _logger.exception("Looking for the accepted model failed; the next look comes in %s s", POLL_SECONDS)


def champion_version(models_dir: Path) -> str | None:
    """Return the version that `champion.json` names; None if there is no such file, or it names none."""
    try:
        record = json.loads((models_dir / CHAMPION_NAME).read_text())
    except (OSError, ValueError):
        return None
    version = record.get("version") if isinstance(record, dict) else None
    # The name becomes part of a path, so only a version will do.
    return version if isinstance(version, str) and is_version(version) else None
