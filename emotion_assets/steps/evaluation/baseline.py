"""A network of the size that student projects train, on the same faces: what all the effort has to beat.

Three blocks of convolution, ReLU and pooling with 8, 16 and 32 channels, two fully connected layers, about
270,000 weights; Adam, no augmentation, no schedule. It is trained on demand (the job `measure_baseline`) and
its answers for the test faces are kept beside the reports, so that every report can show them.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.files import write_atomically
from emotion_assets.steps.evaluation.scores import LabelledPredictions, Scores, score
from emotion_assets.steps.splits.splits import Split, read_split

_NAME: Final = "student.parquet"
_BATCH: Final = 64
_LEARNING_RATE: Final = 5e-4


@dataclass(frozen=True, slots=True)
class BaselineResult:
    """The baseline CNN's scores on the test faces, and what it cost."""

    scores: Scores
    epochs: int
    cpu_seconds: float


class BaselineNet(nn.Module):
    """The network itself."""

    def __init__(self) -> None:
        """Make it with random weights."""
        super().__init__()
        layers: list[nn.Module] = []
        for num_in, num_out in ((1, 8), (8, 16), (16, 32)):
            layers += [nn.Conv2d(num_in, num_out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(32 * 64, 128), nn.ReLU(), nn.Linear(128, len(EMOTIONS)))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (image, emotion) for uint8 pixels (image, 64, 64)."""
        logits: Tensor = self.head(self.body(pixels[:, None].float() / 255))
        return logits


def measure_baseline(
    splits_dir: Path, reports_dir: Path, epochs: int, *, seed: int = 0, log: Callable[[str], None] = lambda _: None
) -> BaselineResult:
    """Train the baseline CNN, keep its answers for the test faces, and return their scores.

    Raises:
        UnusableDataError: there are no splits.
    """
    torch.manual_seed(seed)
    train, test = read_split(splits_dir, "train"), read_split(splits_dir, "test")
    network = BaselineNet()
    optimizer = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
    pixels, class_indices = torch.from_numpy(train.pixels), torch.from_numpy(train.class_indices)
    started = time.process_time()
    for epoch in range(epochs):
        for chosen in torch.split(torch.randperm(len(pixels)), _BATCH):
            loss = functional.cross_entropy(network(pixels[chosen]), class_indices[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        log(f"Student-sized network: epoch {epoch + 1} of {epochs}, {time.process_time() - started:.0f} CPU-seconds")
    cpu_seconds = time.process_time() - started
    with torch.inference_mode():
        parts = [network(chunk).softmax(dim=1) for chunk in torch.split(torch.from_numpy(test.pixels), 512)]
    table = pd.DataFrame(torch.cat(parts).numpy(), columns=[f"p_{emotion}" for emotion in EMOTIONS])
    table.insert(0, "content_hash", list(test.content_hashes))
    table["epochs"], table["cpu_seconds"] = epochs, cpu_seconds
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    write_atomically(reports_dir / "evaluation" / _NAME, buffer.getvalue())
    result = read_baseline(reports_dir, test)
    assert result
    return result


def read_baseline(reports_dir: Path, test: Split) -> BaselineResult | None:
    """Return the kept result for exactly these test faces; None if there is none, or the faces changed."""
    path = reports_dir / "evaluation" / _NAME
    if not path.exists():
        return None
    table = pd.read_parquet(path)
    if tuple(table["content_hash"]) != test.content_hashes:
        return None
    probabilities = table[[f"p_{emotion}" for emotion in EMOTIONS]].to_numpy(dtype=np.float32)
    scores = score(LabelledPredictions("student", probabilities, test.class_indices))
    return BaselineResult(scores, int(table["epochs"].iloc[0]), float(table["cpu_seconds"].iloc[0]))
