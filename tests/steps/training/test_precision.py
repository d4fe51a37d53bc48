from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from emotion_assets.steps.training import precision
from emotion_assets.steps.training.config import TrainingConfig, training_config
from emotion_assets.steps.training.precision import (
    BFLOAT16,
    FLOAT32,
    PRECISION_NAME,
    estimate_seconds,
    measured_cost,
    num_local_processes,
    resolve_accelerator,
    resolve_precision,
    work_done,
)

TINY = TrainingConfig(width=4, num_blocks=1)


def test_processes_use_cores_where_there_are_fewer_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes on a machine with one GPU train on the CPU, with its precision."""
    on_cores = resolve_precision(TINY, tmp_path)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    one, two = (TINY.model_copy(update={"devices": devices}) for devices in (1, 2))

    assert (resolve_accelerator(one), resolve_precision(one, tmp_path)) == ("auto", "16-mixed")
    assert (resolve_accelerator(two), resolve_precision(two, tmp_path)) == ("cpu", on_cores)
    assert resolve_precision(TrainingConfig(precision="32-true"), tmp_path) == "32-true"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_accelerator(two) == "cuda"


def test_the_precision_is_measured_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Both are timed once for a processor and a network; a second run keeps the choice without measuring."""
    caplog.set_level("INFO")
    first = measured_cost(TINY, tmp_path)
    kept = json.loads((tmp_path / PRECISION_NAME).read_text())
    again = measured_cost(TINY, tmp_path)
    other = measured_cost(TINY.model_copy(update={"width": 6}), tmp_path)

    assert first == again
    assert first != other
    assert set(first.milliseconds) == {FLOAT32, BFLOAT16}
    assert min(first.milliseconds.values()) > 0
    assert list(kept.values()) == [{"precision": first.precision, "milliseconds": first.milliseconds}]
    assert caplog.text.count("A training step takes") == 2


@pytest.mark.parametrize(("bfloat16_ms", "expected"), [(0.5, BFLOAT16), (0.95, FLOAT32), (2.0, FLOAT32)])
def test_the_faster_precision_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bfloat16_ms: float, expected: str
) -> None:
    """A few percent are no reason to round more."""
    monkeypatch.setattr(precision, "_measure", lambda _, name, *__: 1.0 if name == FLOAT32 else bfloat16_ms)

    assert resolve_precision(TINY, tmp_path) == expected


def test_a_hopeless_precision_is_not_timed_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor that computes in bfloat16 two hundred times slower, two images tell enough."""
    sizes: list[int] = []
    real = torch.rand

    def rand(*size: int) -> torch.Tensor:
        sizes.append(size[0])
        return real(*size)

    monkeypatch.setattr(torch, "rand", rand)
    monkeypatch.setattr(precision, "_GIVE_UP_FACTOR", 0)

    assert measured_cost(TINY, tmp_path).milliseconds[BFLOAT16] > 0
    assert sizes[-1] == 2
    assert sizes.count(2) == 2


def test_a_damaged_file_is_measured_again(tmp_path: Path) -> None:
    (tmp_path / PRECISION_NAME).write_text("{damaged")

    assert measured_cost(TINY, tmp_path).precision in {FLOAT32, BFLOAT16}


def test_measuring_leaves_the_random_numbers_alone(tmp_path: Path) -> None:
    """Or a first run would differ from a second one."""
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    measured_cost(TINY, tmp_path)

    assert torch.equal(torch.rand(4), expected)


def test_small_images_are_less_work() -> None:
    """A progressive run has done less than half of its work after half of its steps."""
    plain, progressive = (TrainingConfig(is_progressive=flag) for flag in (False, True))

    assert work_done(plain, 0.5) == pytest.approx(0.5, abs=0.01)
    assert 0.25 < work_done(progressive, 0.5) < 0.45
    assert work_done(progressive, 1.0) == 1
    assert estimate_seconds(progressive, 1000, 1e-3) < estimate_seconds(plain, 1000, 1e-3)


def test_teachers_and_limits_count() -> None:
    """Two teachers make three networks, and no run is estimated longer than it may be."""
    alone, taught = (estimate_seconds(TrainingConfig(num_teachers=count), 1000, 1e-3) for count in (0, 2))

    assert taught > 3 * alone
    assert estimate_seconds(TrainingConfig(num_teachers=2, max_minutes=0.5), 1000, 1e-3) == pytest.approx(30)


def test_processes_on_a_host_are_those_that_its_launcher_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of four may be on another host, which has other GPUs."""
    config = training_config("quick", devices=4)
    assert num_local_processes(config) == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert num_local_processes(config) == 2
    assert num_local_processes(training_config("quick")) == 1
