from __future__ import annotations

import pytest
import torch

from emotion_assets.steps.training.config import TrainingConfig
from emotion_assets.steps.training.trainer import resolve_accelerator, resolve_precision


def test_processes_use_cores_where_there_are_fewer_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes on a machine with one GPU train on the CPU, with its precision."""
    on_cores = resolve_precision(TrainingConfig())
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    one, two = (TrainingConfig(devices=devices) for devices in (1, 2))

    assert (resolve_accelerator(one), resolve_precision(one)) == ("auto", "16-mixed")
    assert (resolve_accelerator(two), resolve_precision(two)) == ("cpu", on_cores)
    assert resolve_precision(TrainingConfig(precision="32-true")) == "32-true"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_accelerator(two) == "cuda"
