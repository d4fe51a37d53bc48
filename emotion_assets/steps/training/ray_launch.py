"""Train on the nodes of a Ray cluster: one process for each device, restarted together when one is lost.

Ray Train starts the processes and connects them; each runs the same program as on one host (`train_and_export`). A data
root in object storage is copied to every node, and gets the checkpoint after each epoch, so that a run goes on
elsewhere when the node with its files is lost.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytorch_lightning as pl

from emotion_assets.core import errors
from emotion_assets.core.errors import EmotionError
from emotion_assets.core.layout import DataPaths
from emotion_assets.core.remote import RemoteRoot
from emotion_assets.steps.ingest.ray_cluster import connect, require_processors
from emotion_assets.steps.training.checkpoints import is_first_process
from emotion_assets.steps.training.config import TrainingConfig
from emotion_assets.steps.training.precision import resolve_precision

_MAX_FAILURES: Final = 10
_LOG_SECONDS: Final = 0.5
_RESULT: Final = "result"
_RUNS: Final = "reports/training"

_logger = logging.getLogger(__name__)


def launch_on_ray(paths: DataPaths, config: TrainingConfig, *, code_version: str, tracker: str) -> Path:
    """Train in `config.devices` processes on a Ray cluster, and return the folder of the bundle.

    Without a data root in object storage, all nodes must have its folder.

    Raises:
        EmotionError: as `train_bundle`; or there is no cluster.
        FloatingPointError: the loss became infinite or NaN.
        RuntimeError: processes were lost too often, or ended without an error of their own.
    """
    ray = connect()
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    resolve_precision(config, paths.training_runs)  # measured once, for all nodes with such a processor
    if paths.remote_root:
        RemoteRoot(paths.remote_root, paths.root).commit(_RUNS)
    job = {
        "root": str(paths.root.absolute()),
        "remote_root": paths.remote_root,
        "config": config.model_dump(),
        "code_version": code_version,
        "tracker": tracker,
    }
    has_gpus = ray.cluster_resources().get("GPU", 0) >= config.devices
    if not has_gpus:
        require_processors(ray, config.devices)
    # Beside the launcher: if that is lost, so is the run.
    beside = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    reply = ray.remote(num_cpus=0, scheduling_strategy=beside)(Messages).remote()
    trainer = TorchTrainer(
        train_on_node,
        train_loop_config={**job, "reply": reply},
        torch_config=TorchConfig(backend="nccl" if has_gpus else "gloo"),
        scaling_config=ScalingConfig(num_workers=config.devices, use_gpu=has_gpus),
        run_config=RunConfig(
            name=code_version or "training",
            storage_path=str(paths.training_runs.absolute() / ".ray"),
            failure_config=FailureConfig(max_failures=_MAX_FAILURES),
        ),
    )
    _logger.info("Training in %d processes on a Ray cluster", config.devices)
    with _forwarded_logs(ray, reply):
        trainer.fit()
    found: dict[str, str] = ray.get(reply.outcome.remote())
    if "error" in found:
        kind = FloatingPointError if found["error"] == "FloatingPointError" else getattr(errors, found["error"])
        raise kind(found["message"])
    if _RESULT not in found:
        raise RuntimeError("Training on the Ray cluster ended without a result. Its dashboard has the logs.")
    if paths.remote_root:
        RemoteRoot(paths.remote_root, paths.root).checkout("models")
    return paths.models / found[_RESULT]


class Messages:
    """An actor that keeps what the processes have to say until the launcher asks for it."""

    def __init__(self) -> None:
        """Start empty."""
        self._outcome: dict[str, str] = {}
        self._lines: list[str] = []

    def end(self, **outcome: str) -> None:
        """Keep the outcome of the run."""
        self._outcome = outcome

    def outcome(self) -> dict[str, str]:
        """Return the outcome of the run; empty if there is none yet."""
        return self._outcome

    def log(self, line: str) -> None:
        """Keep a line of the log."""
        self._lines.append(line)

    def take_lines(self) -> list[str]:
        """Return the lines that were not taken yet."""
        lines, self._lines = self._lines, []
        return lines


class _ActorHandler(logging.Handler):
    """Sends lines of the log to the launcher."""

    def __init__(self, messages: Any) -> None:
        super().__init__()
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.log.remote(record.getMessage())


@contextlib.contextmanager
def _forwarded_logs(ray: Any, messages: Any) -> Iterator[None]:
    """Log what the first process logs, until the block ends."""
    stopped = threading.Event()

    def forward() -> None:
        while True:
            is_last = stopped.wait(_LOG_SECONDS)
            for line in ray.get(messages.take_lines.remote()):
                _logger.info("%s", line)
            if is_last:
                return

    thread = threading.Thread(target=forward, name="ray-logs", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(timeout=10 * _LOG_SECONDS)


def train_on_node(job: dict[str, Any]) -> None:
    """Train in one of several processes that Ray Train has started and connected."""
    import ray

    from emotion_assets.steps.training.run import train_and_export

    # Says that a launcher has started all processes, as torch's own launcher does.
    os.environ["TORCHELASTIC_RUN_ID"] = "ray"
    if is_first_process():
        logger = logging.getLogger("emotion_assets")
        logger.addHandler(_ActorHandler(job["reply"]))
        logger.setLevel(logging.INFO)
    paths = DataPaths(Path(job["root"]), job["remote_root"])
    remote = RemoteRoot(paths.remote_root, paths.root) if paths.remote_root else None
    try:
        if remote:
            for folder in ("splits", "models", _RUNS):
                remote.checkout(folder)
        bundle_dir = train_and_export(
            paths,
            TrainingConfig(**job["config"]),
            code_version=job["code_version"],
            tracker=job["tracker"],
            callbacks=[CheckpointUpload(remote)] if remote and is_first_process() else (),
        )
    except (EmotionError, FloatingPointError) as error:
        # Not a lost process: to start again would end in the same way.
        ray.get(job["reply"].end.remote(error=type(error).__name__, message=str(error)))
        return
    if bundle_dir:
        if remote:
            for folder in ("models", _RUNS):
                remote.commit(folder)
        ray.get(job["reply"].end.remote(result=bundle_dir.name))


class CheckpointUpload(pl.Callback):
    """Uploads the checkpoint of an epoch once the next one begins, and so never half of it."""

    def __init__(self, remote: RemoteRoot) -> None:
        """Upload to this data root."""
        self._remote = remote

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Upload what the epoch before has left."""
        if trainer.current_epoch:
            self._remote.commit(_RUNS)
