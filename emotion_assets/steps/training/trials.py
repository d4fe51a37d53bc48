"""Train the trials of a search: one after the other here, or several at once on the nodes of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytorch_lightning as pl
from pytorch_lightning.callbacks import LambdaCallback

from emotion_assets.core.layout import DataPaths
from emotion_assets.core.remote import RemoteRoot
from emotion_assets.steps.ingest.ray_cluster import connect
from emotion_assets.steps.splits.splits import read_manifest
from emotion_assets.steps.training.checkpoints import remove_run_files, run_key
from emotion_assets.steps.training.config import TrainingConfig
from emotion_assets.steps.training.launch import describe_job
from emotion_assets.steps.training.train import train

LOSS: Final = "val/loss"
_POLL_SECONDS: Final = 1.0

Report = Callable[[int, float], None]
"""Takes an epoch and its validation loss; raises an exception to end the trial."""


class LocalTrials:
    """Trains in this process, one trial after the other."""

    num_at_once = 1

    def __init__(self, paths: DataPaths, code_version: str) -> None:
        """Use the splits of `paths`."""
        self._paths, self._code_version = paths, code_version

    def run(self, config: TrainingConfig, report: Report) -> float:
        """Return the last validation loss of a training.

        Raises:
            FloatingPointError: the loss became infinite or NaN.
        """
        splits, runs_dir, version = self._paths.splits, self._paths.reports / "tuning" / "runs", self._code_version

        def report_loss(trainer: pl.Trainer, module: Any) -> None:
            if module.history:
                report(trainer.current_epoch, module.history[-1][LOSS])

        callback = LambdaCallback(on_train_epoch_end=report_loss)
        try:
            trained = train(splits, runs_dir, config, code_version=version, callbacks=[callback])
        finally:
            # No later trial has the same configuration.
            fingerprint = str(read_manifest(splits)["fingerprint"])
            remove_run_files(runs_dir / run_key(fingerprint, config, version))
        return float(trained.history[-1][LOSS])


class RayTrials:
    """Trains one trial on each GPU of a Ray cluster, or on each node if there are none; a lost one is started again."""

    def __init__(self, paths: DataPaths, code_version: str) -> None:
        """Use the splits of `paths`: a data root in object storage, or a folder that all nodes have.

        Raises:
            UnusableDataError: there is no cluster, or it has no processors.
        """
        self._paths, self._code_version, self._ray = paths, code_version, connect()
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        cpus = [int(resources["CPU"]) for resources in nodes if resources.get("CPU", 0) >= 1]
        num_gpus = int(sum(resources.get("GPU", 0) for resources in nodes))
        self._resources = {"num_gpus": 1} if num_gpus else {"num_cpus": min(cpus)}
        self.num_at_once = num_gpus or len(cpus)

    def run(self, config: TrainingConfig, report: Report) -> float:
        """See `LocalTrials.run`."""
        from ray.util.queue import Queue

        losses = Queue(actor_options={"num_cpus": 0})
        start = self._ray.remote(max_retries=-1, **self._resources)(train_on_node).remote
        task = start(describe_job(self._paths, config, self._code_version), losses)
        try:
            is_finished = False
            while not is_finished:
                is_finished = bool(self._ray.wait([task], timeout=_POLL_SECONDS)[0])
                while not losses.empty():
                    report(*losses.get())
            return float(self._ray.get(task))
        except self._ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        finally:
            self._ray.cancel(task)
            losses.shutdown()


def train_on_node(job: dict[str, Any], losses: Any) -> float:
    """Train a trial on a node; put each epoch and its loss into the queue `losses`."""
    paths = DataPaths(Path(job["root"]), job["remote_root"])
    if paths.remote_root:
        RemoteRoot(paths.remote_root, paths.root).checkout("splits")
    trials = LocalTrials(paths, job["code_version"])
    return trials.run(TrainingConfig(**job["config"]), lambda epoch, loss: losses.put((epoch, loss)))
