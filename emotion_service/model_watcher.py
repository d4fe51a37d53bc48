"""Follow the champion: load a newly accepted model while requests are served, or keep the current one.

The pipeline replaces `models/champion.json` atomically, in object storage the head of `models`. A container without a
data root has no such file and serves the model that was packed into the bento.
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
from emotion_assets.core.remote import RemoteRoot

POLL_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 60.0

_logger = logging.getLogger(__name__)


class ModelWatcher:
    """Polls every two seconds which version is accepted, and hands a new one to `load`."""

    def __init__(
        self,
        models_dir: Path,
        served: Callable[[], str],
        load: Callable[[Path], None],
        remote: RemoteRoot | None = None,
    ) -> None:
        """Watch `models_dir`.

        Args:
            models_dir: holds `champion.json` and a folder for each version.
            served: returns the version that is served now.
            load: loads a bundle and serves it from then on; raises if it must not be served.
            remote: the data root that `models_dir` is copied from, if it is in object storage.
        """
        self._models_dir, self._served, self._load, self._remote = models_dir, served, load, remote
        self._failed, self._next_try = "", 0.0
        self._is_unreachable = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="model-watcher", daemon=True)

    def start(self) -> None:
        """Poll once now, then in the background."""
        self.poll()
        self._thread.start()

    def close(self) -> None:
        """Stop polling."""
        self._stop.set()

    def poll(self) -> None:
        """Load the accepted version if it is not served yet; one that fails is retried every minute."""
        self._fetch(CHAMPION_NAME)
        version = champion_version(self._models_dir)
        if version is None or version == self._served():
            return
        if version == self._failed and time.monotonic() < self._next_try:
            return
        try:
            self._fetch(f"{version}/")
            self._load(self._models_dir / version)
        except Exception as error:  # noqa: BLE001 -- whatever is wrong with it, the served model must stay
            if version != self._failed:
                _logger.error("Model %s cannot be served, kept %s: %s", version, self._served(), error)  # noqa: TRY400
            # Its bundle may still be being copied.
            self._failed, self._next_try = version, time.monotonic() + RETRY_SECONDS
        else:
            self._failed = ""
            _logger.info("Serving model %s, the champion of %s", version, self._models_dir)

    def _fetch(self, prefix: str) -> None:
        """Update the local copy of the paths that begin like this; keep it if storage does not respond."""
        if self._remote:
            try:
                self._remote.checkout("models", only=(prefix,))
            except OSError as error:
                if not self._is_unreachable:  # once, not every two seconds
                    _logger.warning("%s cannot be read (%s); using its local copy", self._remote.url, error)
                self._is_unreachable = True
            else:
                self._is_unreachable = False

    def _run(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            try:
                self.poll()
            except Exception:
                _logger.exception("Polling for the champion failed; the next poll follows in %s s", POLL_SECONDS)


def champion_version(models_dir: Path) -> str | None:
    """Return the version that `champion.json` names; None if there is no such file, or it names none."""
    try:
        record = json.loads((models_dir / CHAMPION_NAME).read_text())
    except (OSError, ValueError):
        return None
    version = record.get("version") if isinstance(record, dict) else None
    # The name becomes part of a path, so only a version is accepted.
    return version if isinstance(version, str) and is_version(version) else None
