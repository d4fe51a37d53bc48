"""How many workers, large images and uploads fit into the allowed memory. Imports are light, for the health check."""

from __future__ import annotations

import logging
from typing import Final

from emotion_assets.core.limits import count_cpus, memory_bytes

_logger = logging.getLogger(__name__)

MAX_LARGE_AT_ONCE: Final = 4
"""Large images, batches and face searches that a worker handles at a time: 40 megapixels take 160 MB."""

_SERVER_BYTES: Final = 120 * 2**20
_WORKER_BYTES: Final = 170 * 2**20
_LARGE_IMAGE_BYTES: Final = 170 * 2**20
_MIN_UPLOAD_BYTES: Final = 40 * 2**20
_MAX_UPLOAD_BYTES: Final = 256 * 2**20
"""Measured with some room: 100 MB of BentoML's own process, 150 MB a worker, 160 MB an image of 40 megapixels, 32 MB
a batch."""


def default_workers() -> int:
    """Return one worker for each processor, or as many as fit with a large image and a batch each, at least one."""
    fitting = (memory_bytes() - _SERVER_BYTES) // (_WORKER_BYTES + _LARGE_IMAGE_BYTES + _MIN_UPLOAD_BYTES)
    return max(1, min(count_cpus(), fitting))


def large_images_that_fit(workers: int) -> int:
    """Return how many large images each worker may handle at a time, 1 to MAX_LARGE_AT_ONCE; warn about fewer."""
    allowed_bytes = memory_bytes()
    left = _left_for_requests(workers) - _MIN_UPLOAD_BYTES
    count = min(max(1, left // _LARGE_IMAGE_BYTES), MAX_LARGE_AT_ONCE)
    if count < MAX_LARGE_AT_ONCE:
        _logger.warning(
            "%d MB of memory are allowed: each of %d workers handles %d large images at a time instead of %d",
            allowed_bytes // 2**20,
            workers,
            count,
            MAX_LARGE_AT_ONCE,
        )
    return count


def upload_bytes_that_fit(workers: int, num_large: int) -> int:
    """Return how many bytes of uploads each worker may buffer beside its large images, 40 to 256 MiB."""
    left = _left_for_requests(workers) - num_large * _LARGE_IMAGE_BYTES
    return min(max(_MIN_UPLOAD_BYTES, left), _MAX_UPLOAD_BYTES)


def _left_for_requests(workers: int) -> int:
    return (memory_bytes() - _SERVER_BYTES) // workers - _WORKER_BYTES
