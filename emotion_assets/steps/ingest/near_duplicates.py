"""Find near-duplicates: one image re-encoded, cropped a little, watermarked, brightened or mirrored.

The descriptor has the 120 lowest frequencies of an image's cosine transform, each weighted by its frequency, so that
layout counts and the smooth lighting that all face crops share does not. Two images are near-duplicates when the
cosine similarity of their descriptors, or of one and the mirrored other, is at least 0.85. Method and threshold were
checked by eye; see docs/near_duplicates.md.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.fft import dct
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from threadpoolctl import threadpool_limits

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.images import IMAGE_SIZE_PX, Pixels
from emotion_assets.core.limits import count_cpus
from emotion_assets.steps.ingest.store import Store

SIMILARITY_THRESHOLD: Final = 0.85

_NUM_FREQUENCIES: Final = 12
# Unit vectors are rounded to integers of this scale: |v|² stays below 2**24, so float32 matrix products are exact in
# any order, and the decision on a pair is the same on every machine and in every batch.
_SCALE: Final = 2048
_BLOCK_ROWS: Final = 128
_BLOCK_COLUMNS: Final = 1024
_BLANK_NORM: Final = 8.0
MAX_PAIRS: Final = 2_000_000
"""As many as 2,000 frames of one film give: most likely a mistake, which would cost gigabytes."""

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
        int16 (image, 120): vectors of length 2048. Images without any structure share one vector, so that all blank
        images count as one.
    """
    # One small product per image, so that a descriptor does not depend on its batch.
    spectrum = _BASIS @ pixels.astype(np.float64) @ _BASIS.T
    vectors = spectrum[:, _KEPT] * _WEIGHT
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[norms[:, 0] < _BLANK_NORM] = 1
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.rint(vectors / norms * _SCALE), dtype=np.int16)


class TooManyPairsError(Exception):
    """There are more near-duplicate pairs than fit in memory; `position` is an image with many of them."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


def similar_pairs(
    descriptors: Descriptors, is_compared: npt.NDArray[np.bool_], max_pairs: int = MAX_PAIRS
) -> npt.NDArray[np.int64]:
    """Return the near-duplicate pairs that include at least one image not compared yet.

    Args:
        descriptors: int16 (image, 120).
        is_compared: bool (image,); pairs of two True images are known and not returned.
        max_pairs: the limit on the number of pairs.

    Returns:
        int64 (pair, 2) of positions, the first below the second.

    Raises:
        TooManyPairsError: there are more than `max_pairs`.
    """
    limit = np.float32(SIMILARITY_THRESHOLD * _SCALE**2)
    # Mirroring flips the sign of the odd columns. With separate products of even and odd features, the larger of the
    # plain and the mirrored similarity is even + |odd|.
    even = np.ascontiguousarray(descriptors[:, ~_IS_ODD], dtype=np.float32)
    odd = np.ascontiguousarray(descriptors[:, _IS_ODD], dtype=np.float32)
    order = np.concatenate([np.flatnonzero(is_compared), np.flatnonzero(~is_compared)])
    even, odd = even[order], odd[order]
    counts: list[int] = []

    def pairs_of_block(start: int) -> list[npt.NDArray[np.int64]]:
        """Compare a block of new images with all before it and with itself, so that each pair is found once."""
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
    # One thread per core with single-threaded products: blocks stay in the core's cache, and no thread waits.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(count_cpus()) as threads:
        found = [pairs for block in threads.map(pairs_of_block, starts) for pairs in block]
    if not found:
        return np.empty((0, 2), dtype=np.int64)
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def compare_new_contents(store: Store) -> int:
    """Find the near-duplicates of contents that were never compared; return the number of new pairs.

    Raises:
        UnusableDataError: there are too many, as in the frames of a film; the message names one image.
    """
    if not store.has_uncompared():
        return 0
    store.drop_outdated_pairs()
    ids, descriptors, is_compared = store.descriptors()
    try:
        pairs = similar_pairs(descriptors, is_compared, max_pairs=MAX_PAIRS - store.num_pairs())
    except TooManyPairsError as error:
        path = os.fsdecode(store.find_path(int(ids[error.position])))
        raise UnusableDataError(
            f"More than {MAX_PAIRS:,} pairs of images are near-duplicates; raw/{path} is in many of them: frames of a "
            "film, or blank images? Keep a few of them, remove the others, and materialize raw_images again."
        ) from error
    store.add_pairs(((int(ids[a]), int(ids[b])) for a, b in pairs), ids[~is_compared])
    return len(pairs)


def duplicate_groups(pairs: npt.NDArray[np.int64], hash_of: dict[int, str]) -> dict[int, str]:
    """Name the group of every content that has a near-duplicate, by content id.

    The name is derived from the smallest content hash of the group, so it does not depend on any order.
    """
    ids, nodes = np.unique(pairs, return_inverse=True)
    labels = component_labels(nodes.reshape(-1, 2), len(ids)).tolist()
    smallest: dict[int, str] = {}
    for content_id, label in zip(ids.tolist(), labels, strict=True):
        smallest[label] = min(smallest.get(label, hash_of[content_id]), hash_of[content_id])
    names = {label: hashlib.sha256(content_hash.encode()).hexdigest()[:12] for label, content_hash in smallest.items()}
    return {content_id: names[label] for content_id, label in zip(ids.tolist(), labels, strict=True)}


def component_labels(edges: npt.NDArray[np.int64], num_nodes: int) -> npt.NDArray[np.int32]:
    """Return the number of the connected component of each node, int32 (node,), given edges, int64 (edge, 2)."""
    graph = coo_array((np.ones(len(edges), dtype=np.bool_), edges.T), shape=(num_nodes, num_nodes))
    labels: npt.NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return labels
