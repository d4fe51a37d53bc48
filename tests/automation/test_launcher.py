from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import grpc
import pytest
from dagster._core.launcher import WorkerStatus

from emotion_assets.automation.launcher import WatchedRunLauncher


@dg.job
def nothing() -> None:
    """Does nothing."""


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def check(instance: dg.DagsterInstance, server: dict[str, object] | None) -> WorkerStatus:
    launcher = WatchedRunLauncher()
    launcher.register_instance(instance)
    tags = {} if server is None else {".dagster/grpc_info": json.dumps({"host": "localhost"} | server)}
    run = instance.create_run_for_job(nothing, tags=tags)
    return launcher.check_run_worker_health(run).status


def test_a_run_of_a_dead_code_server_has_failed(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    """Its socket is gone; `tests/faults/test_daemon.py` kills a real one."""
    assert WatchedRunLauncher().supports_check_run_worker_health
    assert check(instance, {"socket": str(tmp_path / "gone")}) == WorkerStatus.FAILED


def test_a_run_without_a_code_server_is_left_alone(instance: dg.DagsterInstance) -> None:
    """As by `dagster job execute`."""
    assert check(instance, None) == WorkerStatus.RUNNING


def test_a_busy_code_server_counts_as_healthy(instance: dg.DagsterInstance) -> None:
    """It is there, but its time is over before it answers."""

    def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "busy")

    handlers = {"GetCurrentRuns": grpc.unary_unary_rpc_method_handler(answer)}
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("api.DagsterApi", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    status = check(instance, {"port": port})
    server.stop(None)

    assert status == WorkerStatus.RUNNING
