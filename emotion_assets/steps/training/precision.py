"""Choose the faster precision by measuring it on this very processor, and estimate how long a run takes.

Flags of a processor do not tell which is faster: some compute in bfloat16 slower than in float32. The choice is kept
beside the runs, so that an interrupted run resumes with it and equal runs stay equal.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from emotion_assets.core.files import write_json
from emotion_assets.steps.training.config import TrainingConfig
from emotion_assets.steps.training.model import INPUT_SIZE_PX, EmotionNet
from emotion_assets.steps.training.module import choose_side_px

PRECISION_NAME: Final = "precision.json"
FLOAT32: Final = "32-true"
BFLOAT16: Final = "bf16-mixed"

_BATCH: Final = 16
_SECONDS: Final = 0.4
_MIN_GAIN: Final = 1.1
"""bfloat16 has to be this much faster: it rounds more."""
_GIVE_UP_FACTOR: Final = 50
_OVERHEAD: Final = 1.4
"""Optimizer, augmentation, validation, checkpoints and waiting threads, as a factor on forward and backward passes."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StepCost:
    """What a training step costs on a processor, per image of full size."""

    precision: str
    """The faster one."""
    milliseconds: dict[str, float]
    """By precision."""


def num_local_processes(config: TrainingConfig) -> int:
    """Return how many of a run's processes are on this host, which its launcher says."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", config.devices)) if config.devices > 1 else 1


def resolve_accelerator(config: TrainingConfig) -> str:
    """Return Lightning's name of the accelerator: GPUs if there is one for each process, else CPU cores."""
    if config.devices == 1:
        return "auto"
    return "cuda" if torch.cuda.device_count() >= num_local_processes(config) else "cpu"


def resolve_precision(config: TrainingConfig, work_dir: Path) -> str:
    """Return Lightning's name of the precision; `auto` becomes 16 bits where the device is faster with them."""
    if config.precision != "auto":
        return config.precision
    if uses_gpu(config):
        return BFLOAT16 if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    return measured_cost(config, work_dir).precision


def uses_gpu(config: TrainingConfig) -> bool:
    """Return whether a run trains on CUDA GPUs."""
    return torch.cuda.is_available() and resolve_accelerator(config) != "cpu"


def measured_cost(config: TrainingConfig, work_dir: Path) -> StepCost:
    """Return the cost of a step on this processor, measured once for each processor and size of network.

    `precision.json` in `work_dir` keeps the result; a damaged file is measured again.
    """
    path = work_dir / PRECISION_NAME
    key = f"{_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
    with torch.device("meta"):  # draws no random numbers
        network = EmotionNet(config.width, config.dropout, config.num_blocks)
    key += f"{sum(weights.numel() for weights in network.parameters()):,} weights, {INPUT_SIZE_PX} px"
    known: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        known = dict(json.loads(path.read_text()))
    if key in known:
        return StepCost(**known[key])
    milliseconds = {FLOAT32: _measure(config, FLOAT32)}
    milliseconds[BFLOAT16] = _measure(config, BFLOAT16, _GIVE_UP_FACTOR * milliseconds[FLOAT32])
    is_faster = milliseconds[BFLOAT16] * _MIN_GAIN < milliseconds[FLOAT32]
    cost = StepCost(BFLOAT16 if is_faster else FLOAT32, milliseconds)
    write_json(path, known | {key: asdict(cost)})
    _logger.info(
        "A training step takes %.2f ms per image in float32 and %.2f in bfloat16 here: using %s",
        milliseconds[FLOAT32],
        milliseconds[BFLOAT16],
        cost.precision,
    )
    return cost


def _measure(config: TrainingConfig, precision: str, give_up_ms: float = float("inf")) -> float:
    """Return the milliseconds of a forward and a backward pass for one image.

    Measures the CPU time of one thread, divided by the number of training threads: other busy programs, which delay
    some threads and not others, must not change the choice.

    Args:
        config: the choices of the run.
        precision: Lightning's name of it.
        give_up_ms: return the time of a first small step if an image takes longer: some processors need two hundred
            times as long in bfloat16.
    """
    generator_state, num_threads = torch.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(1)
    network = EmotionNet(config.width, config.dropout, config.num_blocks).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def step(num_images: int) -> float:
        images = torch.rand(num_images, 1, INPUT_SIZE_PX, INPUT_SIZE_PX).contiguous(memory_format=torch.channels_last)
        started = time.thread_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == BFLOAT16):
            loss = network(images).float().square().mean()
        loss.backward()
        return 1000 * (time.thread_time() - started) / num_threads / num_images

    milliseconds = step(2)
    if milliseconds < give_up_ms:
        step(_BATCH)  # warms up
        end = time.perf_counter() + _SECONDS
        milliseconds = step(_BATCH)
        while time.perf_counter() < end:
            milliseconds = min(milliseconds, step(_BATCH))
    torch.set_num_threads(num_threads)
    torch.set_rng_state(generator_state)
    return round(milliseconds, 4)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def work_done(config: TrainingConfig, progress: float) -> float:
    """Return the finished fraction of the work, 0..1, at a fraction of the steps: small images cost less."""
    moments, costs = _relative_costs(config)
    return float(costs[moments < progress].sum() / costs.sum())


def estimate_seconds(config: TrainingConfig, num_images: int, seconds_per_image: float) -> float:
    """Estimate how long a run of all its networks takes, without export and evaluation."""
    one = config.epochs * num_images * seconds_per_image * float(_relative_costs(config)[1].mean()) * _OVERHEAD
    # A network with teachers also runs each of them forward, a third of a step.
    total = one * (1 + config.num_teachers * (1 + 1 / 3))
    return total if config.max_minutes is None else min(total, 60 * config.max_minutes)


def _relative_costs(config: TrainingConfig) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return moments of a run, 0..1, and the cost of a step there, that of full size being 1."""
    moments = np.linspace(0, 1, 1000, endpoint=False)
    if not config.is_progressive:
        return moments, np.ones(len(moments))
    return moments, np.array([(choose_side_px(moment) / INPUT_SIZE_PX) ** 2 for moment in moments.tolist()])
