"""Give the memory of large images back to the system.

glibc keeps freed memory for the process: after some large or damaged images a worker holds 30 to 50 MB more for
ever, which looks like a leak and is one to whoever pays for the container.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Final

_SECONDS: Final = 5.0


class HeapTrimmer:
    """Trims the heap in the background, some seconds after it was told of an image that took memory."""

    def __init__(self) -> None:
        """Start; where there is no glibc, nothing is ever done."""
        self._trim: Callable[[int], object] | None
        try:
            self._trim = ctypes.CDLL("libc.so.6").malloc_trim
        except (OSError, AttributeError):
            self._trim = None
        self._is_due = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-keeper", daemon=True)
        self._thread.start()

    def note(self) -> None:
        """Remember that memory was taken; return at once."""
        self._is_due.set()

    def close(self) -> None:
        """Stop."""
        self._stop.set()
        self._is_due.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while self._is_due.wait() and not self._stop.wait(_SECONDS):
            self._is_due.clear()
            if self._trim:
                self._trim(0)
