"""Random digits from the operating system, fetched in stock: on a virtual machine each call costs like a decoding."""

from __future__ import annotations

import os
import threading
from typing import Final

_STOCK_BYTES: Final = 4096


class RandomDigits:
    """Hexadecimal digits that nobody can guess; used from several threads."""

    def __init__(self) -> None:
        """Start with an empty stock, so that processes that are forked before the first use differ."""
        self._lock = threading.Lock()
        self._stock = ""

    def take(self, number: int) -> str:
        """Return `number` digits that are given to nobody else; at most 8,192."""
        with self._lock:
            if len(self._stock) < number:
                self._stock = os.urandom(_STOCK_BYTES).hex()
            taken, self._stock = self._stock[-number:], self._stock[:-number]
        return taken
