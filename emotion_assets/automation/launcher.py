"""Launch runs as Dagster does, and notice those whose process has died."""

from __future__ import annotations

import grpc
import psutil
from dagster import DagsterEventType, DagsterRun, DefaultRunLauncher
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster._grpc.types import GetCurrentRunsResult
from dagster._serdes import deserialize_value


class WatchedRunLauncher(DefaultRunLauncher):
    """Dagster's own launcher, with the health check that run monitoring asks for.

    Without it, a run that dies together with its code server, for example in a power cut, stays STARTED for a day and
    blocks the queue. Dagster has no public interface for this; `tests/faults/test_daemon.py` notices when the private
    one changes.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Tell run monitoring to ask."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Ask the code server that started a run whether it still has it; a busy one counts as healthy."""
        client = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]
        if client is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "It was not started by a code server.")
        try:
            run_ids = deserialize_value(client.get_current_runs(), GetCurrentRunsResult).current_runs
        except DagsterUserCodeUnreachableError as error:
            status = error.__cause__.code() if isinstance(error.__cause__, grpc.RpcError) else None
            if status == grpc.StatusCode.UNAVAILABLE:
                return CheckRunHealthResult(WorkerStatus.FAILED, "Its code server has ended, and the run with it.")
            # The proxy of `dagster dev`, which is on this host, does not know its runs.
            if status == grpc.StatusCode.UNIMPLEMENTED and self._has_ended(run):
                return CheckRunHealthResult(WorkerStatus.FAILED, "Its process has ended.")
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"Its code server does not answer: {error}")
        if run.run_id in run_ids:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, "Its code server has no such process any more.")

    def _has_ended(self, run: DagsterRun) -> bool:
        """Return whether a run noted the number of its process, and that process is gone."""
        records = self._instance.get_records_for_run(run.run_id, of_type=DagsterEventType.ENGINE_EVENT).records
        found = [record.event_log_entry.get_dagster_event().engine_event_data.metadata for record in records]
        pids = [int(str(metadata["pid"].value)) for metadata in found if "pid" in metadata]
        return bool(pids) and not any(psutil.pid_exists(pid) for pid in pids)
