from __future__ import annotations

from xml.etree import ElementTree as ET

import pandas as pd

from emotion_assets.steps.training.figures import learning_curve_figure, tuning_figure


def test_charts_are_small_images() -> None:
    """Dagster shows them inline, also with one point or one failed trial."""
    record = {"epoch": 1, "train/loss": 1.0, "val/loss": 1.1, "val/accuracy": 0.4, "val/macro_f1": 0.3}
    trials = pd.DataFrame(
        {
            "number": [0, 1],
            "state": ["complete", "fail"],
            "val_loss": [1.2, None],
            "learning_rate": [0.01, 0.05],
            "dropout": [0.1, 0.5],
        }
    )

    for content in (learning_curve_figure([record]), tuning_figure(trials)):
        assert ET.fromstring(content).tag.endswith("svg")
        assert len(content) < 100_000
