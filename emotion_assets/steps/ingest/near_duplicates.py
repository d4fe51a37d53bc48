"""Which images are the same image: re-encoded, cropped a little, watermarked, brightened, mirrored.

The descriptor holds the 120 lowest frequencies of an image's cosine transform, each weighted by its
frequency, so that layout counts and the slow light that all face crops share does not. Two images are
near-duplicates when the cosine of their descriptors, or of one and the mirrored other, is at least 0.85.
Method and threshold were checked by eye; see docs/near_duplicates.md.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.fft import dct
from threadpoolctl import threadpool_limits

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.images import IMAGE_SIZE_PX, Pixels
from emotion_assets.steps.ingest.store import Store

SIMILARITY_THRESHOLD: Final = 0.85

_NUM_FREQUENCIES: Final = 12
# Unit vectors are rounded to integers of this scale: |v|² stays below 2**24, so float32 matrix products
# are exact in any order, and the verdict on a pair is the same on every machine and in every batch.
_SCALE: Final = 2048
_BLOCK_ROWS: Final = 128
_BLOCK_COLUMNS: Final = 1024
_BLANK_NORM: Final = 8.0
MAX_PAIRS: Final = 2_000_000
"""Two thousand frames of one film are as many: a mistake, which would cost gigabytes and teach nothing."""

_ROWS, _COLUMNS = np.indices((_NUM_FREQUENCIES, _NUM_FREQUENCIES))
_RADIUS: Final = np.hypot(_ROWS, _COLUMNS)
_KEPT: Final = (_RADIUS > 0) & (_RADIUS < _NUM_FREQUENCIES)
_WEIGHT: Final = _RADIUS[_KEPT]
_BASIS: Final = np.asarray(dct(np.eye(IMAGE_SIZE_PX), axis=0, norm="ortho"))[:_NUM_FREQUENCIES]
_IS_ODD: Final = _COLUMNS[_KEPT] % 2 == 1

Descriptors = npt.NDArray[np.int16]


def compute_descriptors(pixels: Pixels) -> Descriptors:
    """Return the descriptor of each image.

    Args:
        pixels: uint8 (image, row, column).

    Returns:
        int16 (image, 120): a vector of length 2048. Images without any structure get one shared
        vector, so that all blank images count as one.
    """
    # One small product an image, so that a descriptor does not depend on the batch it was computed in.
    spectrum = _BASIS @ pixels.astype(np.float64) @ _BASIS.T
    vectors = spectrum[:, _KEPT] * _WEIGHT
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[norms[:, 0] < _BLANK_NORM] = 1
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.rint(vectors / norms * _SCALE), dtype=np.int16)


class TooManyPairsError(Exception):
    """More images look alike than can be held in memory; `position` is one of those with the most pairs."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


def similar_pairs(
    descriptors: Descriptors, is_compared: npt.NDArray[np.bool_], max_pairs: int = MAX_PAIRS
) -> npt.NDArray[np.int64]:
    """Return the near-duplicate pairs that include at least one image not compared yet.

    Args:
        descriptors: int16 (image, 120).
        is_compared: bool (image,), True where all pairs with other True ones are known.
        max_pairs: how many are too many.

    Returns:
        int64 (pair, 2) of positions, the first below the second.

    Raises:
        TooManyPairsError: there are more than `max_pairs`.
    """
    limit = np.float32(SIMILARITY_THRESHOLD * _SCALE**2)
    # Mirroring turns the sign of the odd columns, so with the products of even and odd features apart,
    # the larger of straight and mirrored similarity is even + |odd|.
    even = np.ascontiguousarray(descriptors[:, ~_IS_ODD], dtype=np.float32)
    odd = np.ascontiguousarray(descriptors[:, _IS_ODD], dtype=np.float32)
    order = np.concatenate([np.flatnonzero(is_compared), np.flatnonzero(~is_compared)])
    even, odd = even[order], odd[order]
    counts: list[int] = []

    def pairs_of_block(start: int) -> list[npt.NDArray[np.int64]]:
        """Hold a block of fresh images against all before it and itself, so that each pair is met once."""
        stop = min(start + _BLOCK_ROWS, len(order))
        found = []
        for left in range(0, stop, _BLOCK_COLUMNS):
            right = min(left + _BLOCK_COLUMNS, stop)
            similarity = odd[start:stop] @ odd[left:right].T
            np.abs(similarity, out=similarity)
            similarity += even[start:stop] @ even[left:right].T
            if similarity.max() >= limit:
                row, column = np.nonzero(similarity >= limit)
                row, column = row + start, column + left
                is_before = column < row  # neither with itself nor twice
                found.append(np.stack([order[row[is_before]], order[column[is_before]]], axis=1))
        num_found = sum(map(len, found))
        counts.append(num_found)
        if num_found and sum(counts) > max_pairs:
            raise TooManyPairsError(int(np.bincount(np.concatenate(found)[:, 0]).argmax()))
        return found

    starts = range(int(is_compared.sum()), len(order), _BLOCK_ROWS)
    # A thread a core with one-threaded products: blocks stay in the core's own cache, and no thread waits.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as threads:
        found = [pairs for block in threads.map(pairs_of_block, starts) for pairs in block]
    if not found:
        return np.empty((0, 2), dtype=np.int64)
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def compare_new_contents(store: Store) -> int:
    """Find the near-duplicates of contents that were never compared; return the number of new pairs.

    Raises:
        UnusableDataError: there are too many, as in a film that was cut into frames; the message names one of them.
    """
    if not store.has_uncompared():
        return 0
    store.drop_outdated_pairs()
    ids, descriptors, is_compared = store.descriptors()
    try:
        pairs = similar_pairs(descriptors, is_compared, max_pairs=MAX_PAIRS - store.num_pairs())
    except TooManyPairsError as error:
        path = os.fsdecode(store.path_of(int(ids[error.position])))
        raise UnusableDataError(
            f"More than {MAX_PAIRS:,} pairs of images look alike; raw/{path} is one of those with the most: frames "
            "of a film, or blank images? Keep a few of them, remove the others, and run again."
        ) from error
    store.add_pairs(((int(ids[a]), int(ids[b])) for a, b in pairs), ids[~is_compared])
    return len(pairs)


def duplicate_groups(pairs: npt.NDArray[np.int64], hash_of: dict[int, str]) -> dict[int, str]:
    """Name the group of every content that has a near-duplicate, by content id.

    The name is derived from the smallest content hash inside, so it does not depend on any order.
    """
    parent: dict[int, int] = {}

    def root(node: int) -> int:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for first, second in pairs.tolist():
        a, b = root(first), root(second)
        if a != b:
            parent[b] = a
    smallest: dict[int, str] = {}
    for node in list(parent):
        top = root(node)
        smallest[top] = min(smallest.get(top, hash_of[node]), hash_of[node])
    return {node: hashlib.sha256(smallest[root(node)].encode()).hexdigest()[:12] for node in parent}
