"""Measure accuracy against CPU-seconds for the baseline CNN and our network, and where the time goes.

Usage: python -m benchmarks.training SPLITS_DIR FACES_DIR [--baseline-epochs 12] [--threads N] [--recipes N]
       [--output DIR]

Both sides train from the same pixels in memory, on as many threads, and are scored on the same labelled faces of
FACES_DIR, with and without near-duplicates of training images. Scoring is not counted. Ours runs as a series of
recipes, from a small network for seconds to the preset `quick`; each is a whole run with its own curve. The baseline
CNN predicts each image once, ours also its mirror image, as it is served. --output gets the curves as JSON, and the
networks, for `benchmarks.robustness`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytorch_lightning as pl
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.labelled_faces import find_labelled, is_near_duplicate, read_pixels
from emotion_assets.core.classes import EMOTIONS
from emotion_assets.steps.evaluation.baseline import BaselineNet
from emotion_assets.steps.evaluation.scores import LabelledPredictions, compute_scores
from emotion_assets.steps.splits.splits import Split, read_split
from emotion_assets.steps.training import module
from emotion_assets.steps.training.calibration import predict_logits
from emotion_assets.steps.training.config import TrainingConfig, training_config
from emotion_assets.steps.training.model import INPUT_SIZE_PX, EmotionNet
from emotion_assets.steps.training.precision import BFLOAT16, measured_cost
from emotion_assets.steps.training.train import train
from emotion_assets.steps.training.trainer import RunningWeightAverage

BASELINE_BATCH: Final = 64
BASELINE_LEARNING_RATE: Final = 5e-4
POINT_RATIO: Final = 1.2
"""Each point of a curve is at so many times the CPU-seconds of the one before."""
FIRST_POINT_S: Final = 5.0
COST_FRACTION: Final = 0.1
"""Of the baseline's cost, after which ours should be as accurate as the baseline at its best."""
RECIPES: Final[dict[str, dict[str, Any]]] = {
    "width 16, 3 epochs": {"width": 16, "epochs": 3, "is_progressive": True},
    "width 24, 5 epochs": {"width": 24, "epochs": 5, "is_progressive": True},
    "width 32, 4 epochs": {"width": 32, "epochs": 4, "is_progressive": True},
    "quick": {},
}


class Curve:
    """Accuracy over CPU-seconds of training; scoring stops the clock."""

    def __init__(
        self, name: str, faces: Split, is_new: np.ndarray, logits: Callable[[], np.ndarray], also_at: float = math.inf
    ) -> None:
        """Score the network behind `logits` on `faces`; `also_at` is an extra point, in CPU-seconds."""
        self._also_at = also_at
        self.name, self._faces, self._is_new, self.logits = name, faces, is_new, logits
        self.points: list[tuple[float, float, float, float]] = []
        self._next = FIRST_POINT_S
        self.start()

    def start(self) -> None:
        """Start the clock."""
        self._started, self._started_wall = time.process_time(), time.perf_counter()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock in this block."""
        before, before_wall = time.process_time(), time.perf_counter()
        yield
        self._started += time.process_time() - before
        self._started_wall += time.perf_counter() - before_wall

    @property
    def cpu_seconds(self) -> float:
        return time.process_time() - self._started

    @property
    def wall_seconds(self) -> float:
        return time.perf_counter() - self._started_wall

    def add_point(self, *, is_last: bool = False) -> None:
        """Score the network as it is now, if a point is due."""
        spent = self.cpu_seconds
        if spent >= self._also_at:
            self._also_at = math.inf
        elif spent >= self._next or is_last:
            self._next = max(self._next, spent) * POINT_RATIO
        else:
            return
        with self.paused():
            logits = self.logits()
            accuracy, macro_f1 = score_logits(logits, self._faces.class_indices)
            on_new, _ = score_logits(logits[self._is_new], self._faces.class_indices[self._is_new])
            self.points.append((spent, accuracy, on_new, macro_f1))
            print(f"| {self.name} | {spent:.1f} | {accuracy:.3f} | {on_new:.3f} | {macro_f1:.3f} |", flush=True)

    def best_within(self, cpu_seconds: float) -> float:
        """Return the best accuracy within a cost; 0 if there is no point yet."""
        return max((accuracy for spent, accuracy, *_ in self.points if spent <= cpu_seconds), default=0.0)

    def cost_of(self, accuracy: float) -> float | None:
        """Return the CPU-seconds until this accuracy; None if it was never reached."""
        return next((seconds for seconds, reached, *_ in self.points if reached >= accuracy), None)


def score_logits(logits: np.ndarray, class_indices: np.ndarray) -> tuple[float, float]:
    """Return accuracy and macro-F1."""
    probabilities = torch.from_numpy(logits).softmax(dim=1).numpy()
    scores = compute_scores(LabelledPredictions("", probabilities, class_indices))
    return scores.accuracy, scores.macro_f1


class CurveCallback(pl.Callback):
    """Adds points between steps, of the averaged weights that a run would keep.

    As for the baseline, reading the images, validation and calibration are not counted.
    """

    def __init__(self, faces: Split, is_new: np.ndarray, name: str, also_at: float) -> None:
        self._network: EmotionNet | None = None
        self._paused = contextlib.ExitStack()
        self.curve = Curve(name, faces, is_new, lambda: self._predict(faces), also_at)

    def _predict(self, faces: Split) -> np.ndarray:
        assert self._network is not None
        was_training = self._network.training
        logits = predict_logits(self._network, faces)
        self._network.train(was_training)
        return logits

    def on_fit_start(self, *_: Any) -> None:
        self.curve.start()

    def on_validation_start(self, *_: Any) -> None:
        self._paused.enter_context(self.curve.paused())

    def on_validation_end(self, *_: Any) -> None:
        self._paused.close()

    def on_fit_end(self, *_: Any) -> None:
        self._paused.enter_context(self.curve.paused())

    def add_last_point(self, network: EmotionNet, faces: Split) -> None:
        self._paused.close()
        self.curve.logits = lambda: predict_logits(network, faces)
        self.curve.add_point(is_last=True)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        averages = [callback for callback in trainer.callbacks if isinstance(callback, RunningWeightAverage)]
        averaged = averages[0]._average_model if averages else None  # noqa: SLF001 -- Lightning has no public access
        self._network = averaged.module.network if averaged is not None else module.network
        self.curve.add_point()


class CostSplit(pl.Callback):
    """Adds up the CPU-seconds of each part of a training step, and the wall time of all steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.wall = 0.0
        self.num_steps = 0
        self._mark = self._mark_wall = self._augmented = 0.0

    def _add(self, part: str) -> None:
        now, now_wall = time.process_time(), time.perf_counter()
        self.seconds[part] += now - self._mark
        self.wall += now_wall - self._mark_wall
        self._mark, self._mark_wall = now, now_wall

    def augment(self, *arguments: Any) -> Tensor:
        """Augment a batch, and measure it."""
        before = time.process_time()
        view = _augment(*arguments)
        self._augmented = time.process_time() - before
        return view

    def on_train_start(self, *_: Any) -> None:
        self._mark, self._mark_wall = time.process_time(), time.perf_counter()

    def on_train_batch_start(self, *_: Any) -> None:
        self._add("between steps: averaging, logging, loading the batch")

    def on_before_backward(self, *_: Any) -> None:
        self._add("forward")
        self.seconds["forward"] -= self._augmented
        self.seconds["augmentation"] += self._augmented

    def on_after_backward(self, *_: Any) -> None:
        self._add("backward")

    def on_train_batch_end(self, *_: Any) -> None:
        self._add("optimizer")
        self.num_steps += 1

    def on_validation_start(self, *_: Any) -> None:
        self._add("between steps: averaging, logging, loading the batch")

    def on_validation_end(self, *_: Any) -> None:
        # Validation is not a part of the steps.
        self._mark, self._mark_wall = time.process_time(), time.perf_counter()


_augment = module.augment


def train_baseline(splits_dir: Path, faces: Split, is_new: np.ndarray, epochs: int) -> tuple[Curve, BaselineNet, float]:
    torch.manual_seed(0)
    split = read_split(splits_dir, "train")
    network = BaselineNet(len(EMOTIONS))
    optimizer = torch.optim.Adam(network.parameters(), lr=BASELINE_LEARNING_RATE)
    pixels, class_indices = torch.from_numpy(split.pixels), torch.from_numpy(split.class_indices)
    batches = torch.split(torch.from_numpy(faces.pixels), 512)

    def predict() -> np.ndarray:
        with torch.inference_mode():
            return np.concatenate([network(batch).numpy() for batch in batches])

    curve = Curve("baseline CNN", faces, is_new, predict)
    for _ in range(epochs):
        for chosen in torch.split(torch.randperm(len(pixels)), BASELINE_BATCH):
            loss = functional.cross_entropy(network(pixels[chosen]), class_indices[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.add_point()
    rate = epochs * len(pixels) / curve.wall_seconds
    curve.add_point(is_last=True)
    return curve, network, rate


def train_ours(
    splits_dir: Path, faces: Split, is_new: np.ndarray, name: str, config: TrainingConfig, also_at: float
) -> tuple[Curve, EmotionNet]:
    with tempfile.TemporaryDirectory() as folder:
        callback = CurveCallback(faces, is_new, name, also_at)
        trained = train(splits_dir, Path(folder), config, callbacks=[callback])
        callback.add_last_point(trained.network, faces)
    return callback.curve, trained.network


def measure_step_costs(splits_dir: Path, config: TrainingConfig) -> CostSplit:
    """Train, and measure the parts of the steps."""
    costs = CostSplit()
    module.augment = costs.augment
    try:
        with tempfile.TemporaryDirectory() as folder:
            train(splits_dir, Path(folder), config, callbacks=[costs])
    finally:
        module.augment = _augment
    return costs


def megaflops(network: nn.Module, image: Tensor) -> float:
    """Return the MFLOP of forward and backward pass for one image; a multiplication and an addition count as two."""
    with FlopCounterMode(display=False) as counter:
        network(image.expand(8, *image.shape[1:])).sum().backward()
    return counter.get_total_flops() / 8 / 1e6


def has_fast_bfloat16() -> bool:
    """Return whether training uses bfloat16 here, because the processor is faster with it."""
    with tempfile.TemporaryDirectory() as folder:
        return measured_cost(training_config("quick"), Path(folder)).precision == BFLOAT16


def peak_gflops(dtype: torch.dtype) -> float:
    """Return the best rate of a large matrix product on all cores."""
    size, best = 2048, 0.0
    left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
    for _ in range(12):
        started = time.perf_counter()
        torch.mm(left, right)
        best = max(best, 2 * size**3 / (time.perf_counter() - started) / 1e9)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("splits_dir", type=Path)
    parser.add_argument("faces_dir", type=Path)
    parser.add_argument("--baseline-epochs", type=int, default=12)
    parser.add_argument("--recipes", type=int, default=len(RECIPES), help="number of our recipes, the smallest first")
    parser.add_argument("--output", type=Path, help="folder for curves and networks")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="of each network; idle threads use CPU, too"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    paths, class_indices = find_labelled(options.faces_dir)
    faces = Split(read_pixels(paths), class_indices, tuple(map(str, paths)))
    is_new = ~is_near_duplicate(faces.pixels, options.splits_dir)
    peak = peak_gflops(torch.bfloat16 if has_fast_bfloat16() else torch.float32)
    print(
        f"{len(faces.pixels):,} faces, {int(is_new.sum()):,} without near-duplicates; {options.threads} threads; "
        f"a matrix product reaches {peak:.0f} GFLOP/s in {'bfloat16' if has_fast_bfloat16() else 'float32'}\n"
    )
    print(
        "| recipe | training CPU-s | accuracy | without near-duplicates | macro-F1 |\n|---|---|---|---|---|", flush=True
    )
    baseline, baseline_network, baseline_rate = train_baseline(
        options.splits_dir, faces, is_new, options.baseline_epochs
    )
    networks: dict[str, nn.Module] = {"baseline CNN": baseline_network}
    ours: dict[str, Curve] = {}
    _, cost = cost_of_best(baseline)
    also_at = 0.995 * COST_FRACTION * cost  # a little earlier, because a step overshoots
    for name, overrides in list(RECIPES.items())[: options.recipes]:
        config = training_config("quick", **overrides)
        ours[name], networks[name] = train_ours(options.splits_dir, faces, is_new, name, config, also_at)
    show_comparison(baseline, ours)
    costs = measure_step_costs(options.splits_dir, training_config("quick", epochs=1))
    show_costs(costs, peak, baseline_rate)
    if options.output:
        write_results(options.output, networks, [baseline, *ours.values()])


def cost_of_best(baseline: Curve) -> tuple[float, float]:
    """Return the best accuracy of the baseline, and its cost in CPU-seconds."""
    best = max(accuracy for _, accuracy, *_ in baseline.points)
    return best, baseline.cost_of(best) or 0.0


def show_comparison(baseline: Curve, ours: dict[str, Curve]) -> None:
    best, cost = cost_of_best(baseline)
    print(f"\nBaseline CNN: {best:.3f} at its best, after {cost:.1f} CPU-s.\n")
    print(f"| ours | after {COST_FRACTION * cost:.1f} CPU-s | at its end | CPU-s of the run | baseline at that cost |")
    print("|---|---|---|---|---|")
    for name, curve in ours.items():
        cpu, accuracy, *_ = curve.points[-1]
        early = curve.best_within(COST_FRACTION * cost)
        print(f"| {name} | {early:.3f} | {accuracy:.3f} | {cpu:.0f} | {baseline.best_within(cpu):.3f} |")


def show_costs(costs: CostSplit, peak: float, baseline_rate: float) -> None:
    config = training_config("quick")
    total = sum(costs.seconds.values())
    print("\n| part of the steps of `quick` | fraction of CPU |\n|---|---|")
    for part, seconds in sorted(costs.seconds.items(), key=lambda pair: -pair[1]):
        print(f"| {part} | {seconds / total:.1%} |")
    num_images = costs.num_steps * config.batch_size
    network = EmotionNet(config.width, num_blocks=config.num_blocks)
    work = megaflops(network, torch.zeros(1, 1, INPUT_SIZE_PX, INPUT_SIZE_PX))
    baseline_work = megaflops(BaselineNet(len(EMOTIONS)), torch.zeros(1, 64, 64, dtype=torch.uint8))
    rate = num_images / costs.wall
    print(
        "\n| network | MFLOP an image, forward and backward | images/s | GFLOP/s | of the peak |\n|---|---|---|---|---|"
    )
    for name, each, images in (("baseline CNN", baseline_work, baseline_rate), ("quick", work, rate)):
        gflops = each * images / 1000
        print(f"| {name} | {each:.0f} | {images:.0f} | {gflops:.0f} | {gflops / peak:.0%} |")


def write_results(folder: Path, networks: dict[str, nn.Module], curves: list[Curve]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, network in networks.items():
        weights = {key: value.contiguous() for key, value in network.state_dict().items()}
        save_file(weights, folder / f"{name.replace(',', '').replace(' ', '_')}.safetensors")
    figures = {curve.name: curve.points for curve in curves}
    (folder / "curves.json").write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
