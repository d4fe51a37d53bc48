"""Train on the nodes of a Ray cluster: one process for each device, restarted together when one is lost.

Ray Train starts the processes and connects them; each runs the same program as on one host (`run_job`). A data root in
object storage is copied to every node, and gets the checkpoint after each epoch, so that a run goes on elsewhere when
the node with its files is lost.
"""

from __future__ import annotations

import logging
import os
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path
from typing import Any, Final

import pytorch_lightning as pl
from pytorch_lightning.callbacks import LambdaCallback

from emotion_assets.core.layout import DataPaths
from emotion_assets.core.remote import RemoteRoot
from emotion_assets.steps.ingest.ray_cluster import connect, require_processors
from emotion_assets.steps.training.checkpoints import is_first_process
from emotion_assets.steps.training.config import TrainingConfig
from emotion_assets.steps.training.launch import describe_job, find_bundle, log_to, run_job
from emotion_assets.steps.training.precision import resolve_precision

_MAX_FAILURES: Final = 10
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
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    resolve_precision(config, paths.training_runs)  # measured once, for all nodes with such a processor
    if paths.remote_root:
        RemoteRoot(paths.remote_root, paths.root).commit(_RUNS)
    has_gpus = ray.cluster_resources().get("GPU", 0) >= config.devices
    if not has_gpus:
        require_processors(ray, config.devices)
    # Beside the launcher: if that is lost, so is the run.
    beside = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    records = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": beside})
    trainer = TorchTrainer(
        train_on_node,
        train_loop_config={**describe_job(paths, config, code_version, tracker), "records": records},
        torch_config=TorchConfig(backend="nccl" if has_gpus else "gloo"),
        scaling_config=ScalingConfig(num_workers=config.devices, use_gpu=has_gpus),
        run_config=RunConfig(
            name=code_version or "training",
            storage_path=str(paths.training_runs.absolute() / ".ray"),
            failure_config=FailureConfig(max_failures=_MAX_FAILURES),
        ),
    )
    _logger.info("Training in %d processes on a Ray cluster", config.devices)
    # A logger handles records as a handler does.
    listener = QueueListener(records, logging.getLogger("emotion_assets"))  # type: ignore[arg-type]
    listener.start()
    try:
        outcome: dict[str, str] = trainer.fit().return_value
    finally:
        listener.stop()
        records.shutdown()
    bundle_dir = find_bundle(paths, outcome)
    if bundle_dir is None:
        raise RuntimeError("Training on the Ray cluster ended without a result. Its dashboard has the logs.")
    if paths.remote_root:
        RemoteRoot(paths.remote_root, paths.root).checkout("models")
    return bundle_dir


def train_on_node(job: dict[str, Any]) -> dict[str, str]:
    """Train in one of several processes that Ray Train has started and connected; return the outcome.

    An error of ours is returned, not raised, or Ray would take the process for a lost one and start again.
    """
    # Says that a launcher has started all processes, as torch's own launcher does.
    os.environ["TORCHELASTIC_RUN_ID"] = "ray"
    log_to(QueueHandler(job["records"]))
    remote = RemoteRoot(job["remote_root"], Path(job["root"])) if job["remote_root"] else None
    if remote:
        for folder in ("splits", "models", _RUNS):
            remote.checkout(folder)

    def upload_checkpoint(trainer: pl.Trainer, _: Any) -> None:
        # That of an epoch, once the next one begins, and so never half of it.
        if remote and trainer.current_epoch:
            remote.commit(_RUNS)

    callback = LambdaCallback(on_train_epoch_start=upload_checkpoint)
    outcome = run_job(job, [callback] if remote and is_first_process() else ())
    if remote and "version" in outcome:
        for folder in ("models", _RUNS):
            remote.commit(folder)
    return outcome
