"""A tiny training, and ways to interrupt one."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.training.config import TrainingConfig
from emotion_assets.steps.training.train import TrainedNetwork

TINY = TrainingConfig(epochs=2, width=4, dropout=0.1, batch_size=32, precision="32-true")


def tiny(**changes: object) -> TrainingConfig:
    """The configuration of a training that takes a second."""
    return TINY.model_copy(update=changes)


def link_splits(drawn_root: Path, root: Path) -> DataPaths:
    """A data root of its own with the drawn splits."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "splits").symlink_to(drawn_root / "splits")
    return DataPaths(root)


def flatten_weights(trained: TrainedNetwork) -> torch.Tensor:
    return torch.cat([value.flatten().float() for value in trained.network.state_dict().values()])


@contextlib.contextmanager
def calling_at(start: str, function: Callable[[], None]) -> Iterator[None]:
    """Call `function` whenever the training logs a line that begins with `start`."""

    class Caller(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith(start):
                function()

    logger, handler = logging.getLogger("emotion_assets.steps.training"), Caller()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextlib.contextmanager
def interrupted_at(start: str) -> Iterator[None]:
    """Interrupt a training when it logs a line that begins with `start`."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with calling_at(start, interrupt), pytest.raises((KeyboardInterrupt, SystemExit)):
        yield
