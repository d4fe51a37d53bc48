"""Accuracy against CPU-seconds: the student project's network and ours; where the time goes; the fraction of the peak.

Usage: python -m benchmarks.training SPLITS_DIR FACES_DIR [--student-epochs 12] [--threads N] [--rungs N] [--kept DIR]

Both sides train from the same pixels in memory, on as many threads, and are asked for the same labelled faces of
FACES_DIR, with and without near-copies of training images. The asking is not counted. Ours runs as a ladder of
recipes, from a small network for seconds to the preset `quick`; each rung is a whole run, and its curve is drawn too.
Both answer as they are served: the student's network once, ours for both mirror images. With --kept the figures are
also written as JSON, and the networks kept, for `benchmarks.robustness`.
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

import lightning.pytorch as pl
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.accuracy_over_http import copies_of_training
from emotion_assets.core.classes import EMOTIONS, emotion_from_folder
from emotion_assets.core.images import decode_image
from emotion_assets.steps.evaluation.baseline import BaselineNet
from emotion_assets.steps.evaluation.scores import LabelledPredictions, score
from emotion_assets.steps.splits.splits import Split, read_split
from emotion_assets.steps.training import module
from emotion_assets.steps.training.calibration import predict_logits
from emotion_assets.steps.training.config import TrainingConfig, training_config
from emotion_assets.steps.training.model import INPUT_SIZE_PX, EmotionNet
from emotion_assets.steps.training.module import RunningWeightAverage
from emotion_assets.steps.training.train import train
from emotion_assets.steps.training.trainer import resolve_precision

BASELINE_BATCH: Final = 64
BASELINE_LEARNING_RATE: Final = 5e-4
LOOK_EVERY: Final = 1.2
"""Each look at the curve comes after so many times the CPU-seconds of the one before."""
FIRST_LOOK_S: Final = 5.0
A_PART: Final = 0.1
"""Of the student's cost, after which ours should be where the student's network ends."""
RUNGS: Final[dict[str, dict[str, Any]]] = {
    "width 16, 3 epochs": {"width": 16, "epochs": 3, "is_progressive": True},
    "width 24, 5 epochs": {"width": 24, "epochs": 5, "is_progressive": True},
    "width 32, 4 epochs": {"width": 32, "epochs": 4, "is_progressive": True},
    "quick": {},
}


class Curve:
    """Accuracy on the faces after so many CPU-seconds of training; asking stops the clock."""

    def __init__(
        self, name: str, faces: Split, is_copy: np.ndarray, logits: Callable[[], np.ndarray], also_at: float = math.inf
    ) -> None:
        """Look at the network behind `logits`; once more after `also_at` CPU-seconds."""
        self._also_at = also_at
        self.name, self._faces, self._is_copy, self.logits = name, faces, is_copy, logits
        self.points: list[tuple[float, float, float, float]] = []
        self._next = FIRST_LOOK_S
        self.start()

    def start(self) -> None:
        """Begin to count."""
        self._started, self._started_wall = time.process_time(), time.perf_counter()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Count nothing of what happens meanwhile."""
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

    def look(self, *, is_last: bool = False) -> None:
        """Ask the network as it is now, if it is time."""
        spent = self.cpu_seconds
        if spent >= self._also_at:
            self._also_at = math.inf
        elif spent >= self._next or is_last:
            self._next = max(self._next, spent) * LOOK_EVERY
        else:
            return
        with self.paused():
            logits = self.logits()
            accuracy, macro_f1 = scores(logits, self._faces.class_indices)
            clean = scores(logits[~self._is_copy], self._faces.class_indices[~self._is_copy])[0]
            self.points.append((spent, accuracy, clean, macro_f1))
            print(f"| {self.name} | {spent:.1f} | {accuracy:.3f} | {clean:.3f} | {macro_f1:.3f} |", flush=True)

    def after(self, cpu_seconds: float) -> float:
        """Return the best accuracy that it had by then; 0 if there was no look."""
        return max((accuracy for spent, accuracy, *_ in self.points if spent <= cpu_seconds), default=0.0)

    def reaches(self, accuracy: float) -> float | None:
        """Return after how many CPU-seconds it had this accuracy; None if never."""
        return next((seconds for seconds, reached, *_ in self.points if reached >= accuracy), None)


def scores(logits: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    probabilities = torch.from_numpy(logits).softmax(dim=1).numpy()
    found = score(LabelledPredictions("", probabilities, truth))
    return found.accuracy, found.macro_f1


class Looks(pl.Callback):
    """Looks at our curve between steps, with the averaged weights that a run would keep.

    As on the other side, neither reading the faces nor asking for validation faces is counted, nor is calibration.
    """

    def __init__(self, faces: Split, is_copy: np.ndarray, name: str, also_at: float) -> None:
        self._network: EmotionNet | None = None
        self._not_counted = contextlib.ExitStack()
        self.curve = Curve(name, faces, is_copy, lambda: self._ask(faces), also_at)

    def _ask(self, faces: Split) -> np.ndarray:
        assert self._network is not None
        was_training = self._network.training
        logits = predict_logits(self._network, faces)
        self._network.train(was_training)
        return logits

    def on_fit_start(self, *_: Any) -> None:
        self.curve.start()

    def on_validation_start(self, *_: Any) -> None:
        self._not_counted.enter_context(self.curve.paused())

    def on_validation_end(self, *_: Any) -> None:
        self._not_counted.close()

    def on_fit_end(self, *_: Any) -> None:
        self._not_counted.enter_context(self.curve.paused())

    def last_look(self, network: EmotionNet, faces: Split) -> None:
        self._not_counted.close()
        self.curve.logits = lambda: predict_logits(network, faces)
        self.curve.look(is_last=True)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        averages = [callback for callback in trainer.callbacks if isinstance(callback, RunningWeightAverage)]
        averaged = averages[0]._average_model if averages else None  # noqa: SLF001 -- Lightning shows it nowhere else
        self._network = averaged.module.network if averaged is not None else module.network
        self.curve.look()


class CostSplit(pl.Callback):
    """Adds up the CPU-seconds of each part of a training step, and the time of all steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.wall = 0.0
        self.num_steps = 0
        self._mark = self._mark_wall = self._augmented = 0.0

    def _spent(self, part: str) -> None:
        now, now_wall = time.process_time(), time.perf_counter()
        self.seconds[part] += now - self._mark
        self.wall += now_wall - self._mark_wall
        self._mark, self._mark_wall = now, now_wall

    def augmented(self, *given: Any) -> Tensor:
        before = time.process_time()
        view = _augment(*given)
        self._augmented = time.process_time() - before
        return view

    def on_train_start(self, *_: Any) -> None:
        self._mark, self._mark_wall = time.process_time(), time.perf_counter()

    def on_train_batch_start(self, *_: Any) -> None:
        self._spent("between steps: averaging, logging, taking the batch")

    def on_before_backward(self, *_: Any) -> None:
        self._spent("forward")
        self.seconds["forward"] -= self._augmented
        self.seconds["augmentation"] += self._augmented

    def on_after_backward(self, *_: Any) -> None:
        self._spent("backward")

    def on_train_batch_end(self, *_: Any) -> None:
        self._spent("optimizer")
        self.num_steps += 1

    def on_validation_start(self, *_: Any) -> None:
        self._spent("between steps: averaging, logging, taking the batch")

    def on_validation_end(self, *_: Any) -> None:
        # Not a part of the steps.
        self._mark, self._mark_wall = time.process_time(), time.perf_counter()


_augment = module.augment


def labelled(faces_dir: Path) -> tuple[Split, list[Path]]:
    paths = [path for path in sorted(faces_dir.rglob("*.jpg")) if emotion_from_folder(path.parent.name)]
    truth = np.array([EMOTIONS.index(emotion_from_folder(path.parent.name) or "") for path in paths])
    pixels = np.stack([decode_image(path.read_bytes()).pixels for path in paths])
    return Split(pixels, truth, tuple(str(path) for path in paths)), paths


def train_baseline(
    splits_dir: Path, faces: Split, is_copy: np.ndarray, epochs: int
) -> tuple[Curve, BaselineNet, float]:
    torch.manual_seed(0)
    split = read_split(splits_dir, "train")
    network = BaselineNet()
    optimizer = torch.optim.Adam(network.parameters(), lr=BASELINE_LEARNING_RATE)
    pixels, truth = torch.from_numpy(split.pixels), torch.from_numpy(split.class_indices)

    def ask() -> np.ndarray:
        with torch.inference_mode():
            return np.concatenate([network(part).numpy() for part in torch.split(torch.from_numpy(faces.pixels), 512)])

    curve = Curve("student", faces, is_copy, ask)
    for _ in range(epochs):
        for chosen in torch.split(torch.randperm(len(pixels)), BASELINE_BATCH):
            loss = functional.cross_entropy(network(pixels[chosen]), truth[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.look()
    rate = epochs * len(pixels) / curve.wall_seconds
    curve.look(is_last=True)
    return curve, network, rate


def train_ours(
    splits_dir: Path, faces: Split, is_copy: np.ndarray, name: str, config: TrainingConfig, also_at: float
) -> tuple[Curve, EmotionNet]:
    with tempfile.TemporaryDirectory() as folder:
        attribution = Looks(faces, is_copy, name, also_at)
        trained = train(splits_dir, Path(folder), config, callbacks=[attribution])
        attribution.last_look(trained.network, faces)
    return attribution.curve, trained.network


def split_of_cost(splits_dir: Path, config: TrainingConfig) -> CostSplit:
    """Train one epoch, and see where the time goes."""
    costs = CostSplit()
    module.augment = costs.augmented
    try:
        with tempfile.TemporaryDirectory() as folder:
            train(splits_dir, Path(folder), config, callbacks=[costs])
    finally:
        module.augment = _augment
    return costs


def megaflops(network: nn.Module, image: Tensor) -> float:
    """Return the arithmetic of forward and backward for one image: a multiplication and an addition are two."""
    with FlopCounterMode(display=False) as counter:
        network(image.expand(8, *image.shape[1:])).sum().backward()
    return counter.get_total_flops() / 8 / 1e6


def has_fast_bfloat16() -> bool:
    """Whether the recipe multiplies in bfloat16 here; where the processor does not, that would be far slower."""
    return resolve_precision(training_config("quick")) == "bf16-mixed"


def peak_gflops(dtype: torch.dtype) -> float:
    """Return the best rate of a large product of matrices on all cores."""
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
    parser.add_argument("--student-epochs", type=int, default=12)
    parser.add_argument("--rungs", type=int, default=len(RUNGS), help="only so many recipes of ours, from the smallest")
    parser.add_argument("--kept", type=Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for both networks; waiting costs CPU, too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    faces, paths = labelled(options.faces_dir)
    is_copy = copies_of_training(paths, options.splits_dir)
    peak = peak_gflops(torch.bfloat16 if has_fast_bfloat16() else torch.float32)
    print(
        f"{len(faces.pixels):,} faces, {int((~is_copy).sum()):,} of them no copies; {options.threads} threads; "
        f"a product of matrices reaches {peak:.0f} GFLOP/s in {'bfloat16' if has_fast_bfloat16() else 'float32'}\n"
    )
    print("| recipe | training CPU-s | accuracy | without copies | macro-F1 |\n|---|---|---|---|---|", flush=True)
    baseline, baseline_network, baseline_rate = train_baseline(
        options.splits_dir, faces, is_copy, options.baseline_epochs
    )
    networks: dict[str, nn.Module] = {"student": baseline_network}
    ours: dict[str, Curve] = {}
    for name, overrides in list(RUNGS.items())[: options.rungs]:
        ours[name], networks[name] = train_ours(
            options.splits_dir,
            faces,
            is_copy,
            name,
            training_config("quick", **overrides),
            time_of_extra_look(baseline),
        )
    show_comparison(baseline, ours)
    costs = split_of_cost(options.splits_dir, training_config("quick", epochs=1))
    show_costs(costs, peak, baseline_rate)
    if options.kept:
        keep(options.kept, networks, [baseline, *ours.values()])


def cost_of_best(baseline: Curve) -> tuple[float, float]:
    """Return the student's best accuracy, and after how many CPU-seconds it had it."""
    best = max(accuracy for _, accuracy, *_ in baseline.points)
    return best, baseline.reaches(best) or 0.0


def time_of_extra_look(baseline: Curve) -> float:
    """Return after how many CPU-seconds to look at ours: a little before its part of the cost, as a step overshoots."""
    return A_PART * cost_of_best(baseline)[1] * 0.995


def show_comparison(baseline: Curve, ours: dict[str, Curve]) -> None:
    best, cost = cost_of_best(baseline)
    print(f"\nThe student's network: {best:.3f} at its best, after {cost:.1f} CPU-s.\n")
    print(f"| ours | after {A_PART * cost:.1f} CPU-s | at its end | CPU-s of the run | student at that cost |")
    print("|---|---|---|---|---|")
    for name, curve in ours.items():
        cpu, accuracy, *_ = curve.points[-1]
        print(f"| {name} | {curve.after(A_PART * cost):.3f} | {accuracy:.3f} | {cpu:.0f} | {baseline.after(cpu):.3f} |")


def show_costs(costs: CostSplit, peak: float, baseline_rate: float) -> None:
    config = training_config("quick")
    together = sum(costs.seconds.values())
    print("\n| part of the steps of `quick` | fraction of CPU |\n|---|---|")
    for part, seconds in sorted(costs.seconds.items(), key=lambda pair: -pair[1]):
        print(f"| {part} | {seconds / together:.1%} |")
    num_images = costs.num_steps * config.batch_size
    work = megaflops(
        EmotionNet(config.width, num_blocks=config.num_blocks), torch.zeros(1, 1, INPUT_SIZE_PX, INPUT_SIZE_PX)
    )
    baseline_work = megaflops(BaselineNet(), torch.zeros(1, 64, 64, dtype=torch.uint8))
    rate = num_images / costs.wall
    print("\n| network | MFLOP an image, both ways | images/s | GFLOP/s | of the peak |\n|---|---|---|---|---|")
    for name, each, images in (("student", baseline_work, baseline_rate), ("quick", work, rate)):
        gflops = each * images / 1000
        print(f"| {name} | {each:.0f} | {images:.0f} | {gflops:.0f} | {gflops / peak:.0%} |")


def keep(folder: Path, networks: dict[str, nn.Module], curves: list[Curve]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, network in networks.items():
        weights = {key: value.contiguous() for key, value in network.state_dict().items()}
        save_file(weights, folder / f"{name.replace(',', '').replace(' ', '_')}.safetensors")
    figures = {curve.name: curve.points for curve in curves}
    (folder / "curves.json").write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
