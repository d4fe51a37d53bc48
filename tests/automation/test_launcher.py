from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import grpc
import pytest
from dagster._core.events import EngineEventData
from dagster._core.launcher import WorkerStatus

from emotion_assets.automation.launcher import WatchedRunLauncher


@dg.job
def nothing() -> None:
    """Does nothing."""


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def check(instance: dg.DagsterInstance, server: dict[str, object] | None, pid: int | None = None) -> WorkerStatus:
    launcher = WatchedRunLauncher()
    launcher.register_instance(instance)
    tags = {} if server is None else {".dagster/grpc_info": json.dumps({"host": "localhost"} | server)}
    run = instance.create_run_for_job(nothing, tags=tags)
    if pid is not None:
        instance.report_engine_event("Started process for run.", run, EngineEventData.in_process(pid))
    return launcher.check_run_worker_health(run).status


def test_a_run_of_a_dead_code_server_has_failed(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    """Its socket is gone; `tests/faults/test_daemon.py` kills a real one."""
    assert WatchedRunLauncher().supports_check_run_worker_health
    assert check(instance, {"socket": str(tmp_path / "gone")}) == WorkerStatus.FAILED


def test_a_run_without_a_code_server_is_left_alone(instance: dg.DagsterInstance) -> None:
    """As by `dagster job execute`."""
    assert check(instance, None) == WorkerStatus.RUNNING


@contextlib.contextmanager
def code_server(status: grpc.StatusCode) -> Iterator[int]:
    """A code server that answers every question about its runs with a status; yields its port."""

    def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(status, "no answer")

    handlers = {"GetCurrentRuns": grpc.unary_unary_rpc_method_handler(answer)}
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("api.DagsterApi", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None)


def test_a_busy_code_server_counts_as_healthy(instance: dg.DagsterInstance) -> None:
    """It is there, but its time is over before it answers."""
    with code_server(grpc.StatusCode.DEADLINE_EXCEEDED) as port:
        assert check(instance, {"port": port}) == WorkerStatus.RUNNING


def test_behind_the_proxy_of_dagster_dev_the_process_counts(instance: dg.DagsterInstance) -> None:
    """The proxy does not know the runs of the server behind it."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    with code_server(grpc.StatusCode.UNIMPLEMENTED) as port:
        assert check(instance, {"port": port}) == WorkerStatus.RUNNING
        assert check(instance, {"port": port}, pid=os.getpid()) == WorkerStatus.RUNNING
        assert check(instance, {"port": port}, pid=ended.pid) == WorkerStatus.FAILED
