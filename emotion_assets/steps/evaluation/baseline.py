"""A baseline CNN on the same splits: what the product's network has to beat.

Three blocks of convolution, ReLU and pooling with 8, 16 and 32 channels, and two fully connected layers: about 270,000
weights, trained with Adam, without augmentation or a schedule. The job `measure_baseline` trains it on demand; its test
predictions are stored beside the evaluation reports, and every report shows their scores.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from emotion_assets.core.features import probability_columns
from emotion_assets.core.files import write_atomically
from emotion_assets.core.images import IMAGE_SIZE_PX
from emotion_assets.core.layout import DataPaths
from emotion_assets.core.summary import Summary
from emotion_assets.steps.evaluation.scores import LabelledPredictions, Scores, compute_scores
from emotion_assets.steps.splits.splits import Split, read_split

_NAME: Final = "baseline.parquet"
"""In the folder of evaluation reports: no version has this form."""
_BATCH: Final = 64
_PREDICT_BATCH: Final = 512
_LEARNING_RATE: Final = 5e-4

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BaselineResult:
    """The baseline CNN's scores on the test split, and its cost."""

    scores: Scores
    epochs: int
    cpu_seconds: float

    def summary(self) -> Summary:
        """Return scores and cost."""
        return Summary(
            values={
                "test/accuracy": self.scores.accuracy,
                "test/macro_f1": self.scores.macro_f1,
                "epochs": self.epochs,
                "cpu_seconds": self.cpu_seconds,
            }
        )


class BaselineNet(nn.Module):
    """The baseline CNN."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for num_in, num_out in ((1, 8), (8, 16), (16, 32)):
            layers += [nn.Conv2d(num_in, num_out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers)
        num_features = 32 * (IMAGE_SIZE_PX // 8) ** 2
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(num_features, 128), nn.ReLU(), nn.Linear(128, num_classes))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (image, emotion) for uint8 pixels (image, 64, 64)."""
        logits: Tensor = self.head(self.body(pixels[:, None].float() / 255))
        return logits


def measure_baseline(paths: DataPaths, epochs: int) -> BaselineResult:
    """Train the baseline CNN, store its test predictions and return their scores.

    Raises:
        UnusableDataError: there are no splits.
    """
    torch.manual_seed(0)
    train, test = read_split(paths.splits, "train"), read_split(paths.splits, "test")
    network = BaselineNet(len(train.emotions))
    optimizer = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
    pixels, class_indices = torch.from_numpy(train.pixels), torch.from_numpy(train.class_indices)
    started = time.process_time()
    for epoch in range(epochs):
        for chosen in torch.split(torch.randperm(len(pixels)), _BATCH):
            loss = functional.cross_entropy(network(pixels[chosen]), class_indices[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        _logger.info("Baseline: epoch %d of %d, %.0f CPU-seconds", epoch + 1, epochs, time.process_time() - started)
    cpu_seconds = time.process_time() - started
    with torch.inference_mode():
        batches = torch.split(torch.from_numpy(test.pixels), _PREDICT_BATCH)
        probabilities = torch.cat([network(batch).softmax(dim=1) for batch in batches]).numpy()
    table = pd.DataFrame(probabilities, columns=probability_columns(test.emotions))
    table.insert(0, "content_hash", list(test.content_hashes))
    table["epochs"], table["cpu_seconds"] = epochs, cpu_seconds
    write_atomically(paths.evaluation_report(_NAME), table.to_parquet(index=False))
    return BaselineResult(_score(probabilities, test), epochs, cpu_seconds)


def read_baseline(paths: DataPaths, test: Split) -> BaselineResult | None:
    """Return the stored result for exactly these test images; None if there is none, or images or classes changed."""
    path = paths.evaluation_report(_NAME)
    if not path.exists():
        return None
    table, columns = pd.read_parquet(path), probability_columns(test.emotions)
    if tuple(table["content_hash"]) != test.content_hashes or not set(columns) <= set(table.columns):
        return None
    scores = _score(table[columns].to_numpy(dtype=np.float32), test)
    return BaselineResult(scores, int(table["epochs"].iloc[0]), float(table["cpu_seconds"].iloc[0]))


def _score(probabilities: npt.NDArray[np.float32], test: Split) -> Scores:
    return compute_scores(LabelledPredictions("baseline", probabilities, test.class_indices, emotions=test.emotions))
