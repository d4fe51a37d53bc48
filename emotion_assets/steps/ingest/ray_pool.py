"""Read and decode batches of files on the nodes of a Ray cluster."""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Generator, Iterable
from typing import Any, Final

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.remote import is_remote
from emotion_assets.steps.ingest.decode import ReadResult, read_files
from emotion_assets.steps.ingest.decode_pool import Batch
from emotion_assets.steps.ingest.ray_cluster import connect

_BATCHES_PER_CPU: Final = 2
"""In flight: one is decoded while the next one is sent."""

_logger = logging.getLogger(__name__)


def read_on_cluster(raw_dir: str, batches: Iterable[Batch]) -> Generator[tuple[Batch, list[ReadResult]]]:
    """Yield each batch with the result of `read_files`, in order, from whatever processors a Ray cluster has.

    Ray replaces lost workers and nodes. Unlike those of `DecodePool`, they do not know the store, so they decode
    contents that it holds already.

    Raises:
        UnusableDataError: a node does not have the folder `raw_dir`, or there is no cluster.
    """
    ray = connect()
    # -1: a batch whose worker or node is lost is read elsewhere, however often.
    submit = ray.remote(num_cpus=1, max_retries=-1, scheduling_strategy="SPREAD")(read_on_node).remote
    num_in_flight = int(ray.cluster_resources()["CPU"]) * _BATCHES_PER_CPU
    in_flight: deque[tuple[Batch, Any]] = deque()
    nodes: set[str] = set()

    def finish() -> tuple[Batch, list[ReadResult]]:
        batch, result = in_flight[0]
        try:
            node, found = ray.get(result)
        except ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        in_flight.popleft()
        nodes.add(node)
        return batch, found

    try:
        for batch in batches:
            in_flight.append((batch, submit(raw_dir, batch)))
            if len(in_flight) >= num_in_flight:
                yield finish()
        while in_flight:
            yield finish()
        if nodes:
            _logger.info("%d Ray nodes took part", len(nodes))
    finally:
        for _, result in in_flight:
            ray.cancel(result)


def read_on_node(raw_dir: str, batch: Batch) -> tuple[str, list[ReadResult]]:
    """Read a batch on a node; return the node's id with the results.

    Raises:
        UnusableDataError: the node does not have the folder: its files would seem to be gone.
    """
    if not is_remote(raw_dir) and not os.path.isdir(raw_dir):
        raise UnusableDataError(
            f"The Ray node {socket.gethostname()} has no folder {raw_dir}. Mount it there, or keep the data root in "
            "object storage."
        )
    return connect().get_runtime_context().get_node_id(), read_files(raw_dir, "", batch)
