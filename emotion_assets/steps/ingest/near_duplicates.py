"""Find near-duplicates: one image re-encoded, cropped a little, watermarked, brightened or mirrored.

The descriptor has the 120 lowest frequencies of an image's cosine transform, each weighted by its frequency, so that
layout counts and the smooth lighting that all face crops share does not. Two images are near-duplicates when the
cosine similarity of their descriptors, or of one and the mirrored other, is at least 0.85. Method and threshold were
checked by eye; see docs/near_duplicates.md.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
_LIMIT: Final = np.float32(SIMILARITY_THRESHOLD * _SCALE**2)
MAX_PAIRS: Final = 2_000_000
"""As many as 2,000 frames of one film give: most likely a mistake, which would cost gigabytes."""
MAX_EXACT_IMAGES: Final = 2_000_000
"""To compare so many with each other takes three core-hours."""
_CELLS_PER_ROOT: Final = 4
"""Number of cells per square root of the number of images."""
_NUM_PROBES: Final = 32
"""Number of cells that an image is compared with."""

_ROWS, _COLUMNS = np.indices((_NUM_FREQUENCIES, _NUM_FREQUENCIES))
_RADIUS: Final = np.hypot(_ROWS, _COLUMNS)
_KEPT: Final = (_RADIUS > 0) & (_RADIUS < _NUM_FREQUENCIES)
_WEIGHT: Final = _RADIUS[_KEPT]
_BASIS: Final = np.asarray(dct(np.eye(IMAGE_SIZE_PX), axis=0, norm="ortho"))[:_NUM_FREQUENCIES]
_IS_ODD: Final = _COLUMNS[_KEPT] % 2 == 1

Descriptors = npt.NDArray[np.int16]
Positions = npt.NDArray[np.int64]


def compute_descriptors(pixels: Pixels) -> Descriptors:
    """Return the descriptor of each image, uint8 (image, row, column), as int16 (image, 120) of length 2048.

    Images without any structure share one vector, so that all blank images count as one.
    """
    # One small product per image, so that a descriptor does not depend on its batch.
    spectrum = _BASIS @ pixels.astype(np.float64) @ _BASIS.T
    vectors = spectrum[:, _KEPT] * _WEIGHT
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[norms[:, 0] < _BLANK_NORM] = 1
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.rint(vectors / norms * _SCALE), dtype=np.int16)


class TooManyPairsError(Exception):
    """There are more near-duplicate pairs than fit in memory; its argument is the position of an image with many."""


@dataclass(frozen=True, slots=True)
class _Vectors:
    """Descriptors prepared for products.

    Mirroring flips the sign of the odd columns. With separate products of even and odd features, the larger of the
    plain and the mirrored similarity is even + |odd|.
    """

    even: npt.NDArray[np.float32]
    odd: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.even)

    def at(self, index: slice | Positions) -> _Vectors:
        return _Vectors(self.even[index], self.odd[index])

    def similarities(self, others: _Vectors) -> npt.NDArray[np.float32]:
        """Return float (image, other image), 2048² for equal ones."""
        found: npt.NDArray[np.float32] = self.odd @ others.odd.T
        np.abs(found, out=found)
        found += self.even @ others.even.T
        return found


def similar_pairs(
    descriptors: Descriptors, is_compared: npt.NDArray[np.bool_], max_pairs: int = MAX_PAIRS
) -> npt.NDArray[np.int64]:
    """Return the near-duplicate pairs that include at least one image not compared yet.

    Among more than `MAX_EXACT_IMAGES` a few of them are missed (docs/near_duplicates.md).

    Args:
        descriptors: int16 (image, 120).
        is_compared: bool (image,); pairs of two True images are known and not returned.
        max_pairs: the limit on the number of pairs.

    Returns:
        int64 (pair, 2) of positions, the first below the second.

    Raises:
        TooManyPairsError: there are more than `max_pairs`.
    """
    order = np.concatenate([np.flatnonzero(is_compared), np.flatnonzero(~is_compared)])
    even = np.ascontiguousarray(descriptors[:, ~_IS_ODD], dtype=np.float32)
    odd = np.ascontiguousarray(descriptors[:, _IS_ODD], dtype=np.float32)
    search = _search_all if len(order) <= MAX_EXACT_IMAGES else _search_cells
    found, num_found = [np.empty((0, 2), dtype=np.int64)], 0
    # One thread per core with single-threaded products: blocks stay in the core's cache, and no thread waits.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(count_cpus()) as threads:
        for pairs in search(_Vectors(even[order], odd[order]), int(is_compared.sum()), threads):
            found.append(np.sort(order[pairs], axis=1))
            num_found += len(pairs)
            if num_found > max_pairs:
                found = [np.unique(np.concatenate(found), axis=0)]  # the search in cells finds most pairs twice
                num_found = len(found[0])
            if num_found > max_pairs:
                threads.shutdown(cancel_futures=True)
                raise TooManyPairsError(int(np.bincount(found[0].ravel()).argmax()))
    return np.unique(np.concatenate(found), axis=0)


def _search_all(vectors: _Vectors, num_compared: int, threads: ThreadPoolExecutor) -> Iterator[Positions]:
    """Compare each block of new images with all before it and with itself, so that each pair is found once."""

    def pairs_of_block(start: int) -> Positions:
        stop = min(start + _BLOCK_ROWS, len(vectors))
        found = [np.empty((0, 2), dtype=np.int64)]
        for left in range(0, stop, _BLOCK_COLUMNS):
            similarity = vectors.at(slice(start, stop)).similarities(vectors.at(slice(left, left + _BLOCK_COLUMNS)))
            if similarity.max() >= _LIMIT:
                pairs = np.argwhere(similarity >= _LIMIT) + np.array([start, left])
                found.append(pairs[pairs[:, 1] < pairs[:, 0]])  # neither with itself nor twice
        return np.concatenate(found)

    return threads.map(pairs_of_block, range(num_compared, len(vectors), _BLOCK_ROWS))


def _search_cells(vectors: _Vectors, num_compared: int, threads: ThreadPoolExecutor) -> Iterator[Positions]:
    """Compare each new image with the images of the few cells whose centers are nearest to it.

    An image belongs to the cell of the nearest center (an inverted file; Sivic and Zisserman 2003, "Video Google"). The
    centers are some of the images.
    """
    num_cells = round(_CELLS_PER_ROOT * math.sqrt(len(vectors)))
    chosen = np.random.default_rng(0).choice(len(vectors), num_cells, replace=False)
    centers = vectors.at(np.sort(chosen))

    def nearest_cells(start: int) -> npt.NDArray[np.int32]:
        similarity = vectors.at(slice(start, start + _BLOCK_ROWS)).similarities(centers)
        cells = np.argpartition(similarity, -_NUM_PROBES, axis=1)[:, -_NUM_PROBES:]
        return np.take_along_axis(cells, np.take_along_axis(-similarity, cells, 1).argsort(1), 1).astype(np.int32)

    cells = np.concatenate(list(threads.map(nearest_cells, range(0, len(vectors), _BLOCK_ROWS))))
    members, member_starts = _group(cells[:, 0], num_cells)
    probes, probe_starts = _group(cells[num_compared:].ravel(), num_cells)
    probes = num_compared + probes // _NUM_PROBES

    def pairs_of_cell(cell: int) -> Positions:
        rows = probes[probe_starts[cell] : probe_starts[cell + 1]]
        columns = members[member_starts[cell] : member_starts[cell + 1]]
        found = [np.empty((0, 2), dtype=np.int64)]
        for start in range(0, len(rows), _BLOCK_ROWS):
            some = rows[start : start + _BLOCK_ROWS]
            row, column = np.nonzero(vectors.at(some).similarities(vectors.at(columns)) >= _LIMIT)
            pairs = np.stack([some[row], columns[column]], axis=1)
            found.append(pairs[pairs[:, 0] != pairs[:, 1]])
            if sum(map(len, found)) > 2 * MAX_PAIRS:
                break  # too many, though each is found twice
        return np.concatenate(found)

    return threads.map(pairs_of_cell, range(num_cells))


def _group(cells: npt.NDArray[np.int32], num_cells: int) -> tuple[Positions, Positions]:
    """Return the positions in the order of their cells, and where each cell starts, and the last one ends."""
    order = cells.argsort(kind="stable")
    return order, np.searchsorted(cells[order], np.arange(num_cells + 1))


def describe_search(num_images: int) -> str:
    """Say how near-duplicates among so many images are searched for."""
    return "all pairs" if num_images <= MAX_EXACT_IMAGES else "in cells, which misses about 1 % of the pairs"


def compare_new_contents(store: Store) -> None:
    """Find the near-duplicates of contents that were never compared.

    Raises:
        UnusableDataError: there are too many, for example in the frames of a film; the message names one image.
    """
    if not store.has_uncompared():
        return
    store.drop_outdated_pairs()
    ids, descriptors, is_compared = store.descriptors()
    try:
        pairs = similar_pairs(descriptors, is_compared, max_pairs=MAX_PAIRS - store.num_pairs())
    except TooManyPairsError as error:
        path = os.fsdecode(store.find_path(int(ids[error.args[0]])))
        raise UnusableDataError(
            f"More than {MAX_PAIRS:,} pairs of images are near-duplicates; raw/{path} is in many of them: frames of a "
            "film, or blank images? Keep a few of them, remove the others, and materialize raw_images again."
        ) from error
    store.add_pairs(((int(ids[a]), int(ids[b])) for a, b in pairs), ids[~is_compared])


def duplicate_groups(pairs: npt.NDArray[np.int64], hash_of: dict[int, str]) -> dict[int, str]:
    """Name the group of every content that has a near-duplicate, by content id.

    The name is derived from the smallest content hash of the group, so it does not depend on any order.
    """
    components = component_of(pairs)
    smallest: dict[int, str] = {}
    for content_id, number in components.items():
        smallest[number] = min(smallest.get(number, hash_of[content_id]), hash_of[content_id])
    names = {number: hashlib.sha256(first.encode()).hexdigest()[:12] for number, first in smallest.items()}
    return {content_id: names[number] for content_id, number in components.items()}


def component_of(pairs: npt.NDArray[np.int64]) -> dict[int, int]:
    """Return the number of the connected component of each id in `pairs`, int64 (pair, 2)."""
    ids, nodes = np.unique(pairs, return_inverse=True)
    labels = component_labels(nodes.reshape(-1, 2), len(ids))
    return dict(zip(ids.tolist(), labels.tolist(), strict=True))


def component_labels(edges: npt.NDArray[np.int64], num_nodes: int) -> npt.NDArray[np.int32]:
    """Return the number of the connected component of each node, int32 (node,), given edges, int64 (edge, 2)."""
    graph = coo_array((np.ones(len(edges), dtype=np.bool_), edges.T), shape=(num_nodes, num_nodes))
    labels: npt.NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return labels
