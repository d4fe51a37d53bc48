"""The layout of the data root: where the pipeline and the service read and write."""

from __future__ import annotations

from pathlib import Path
from typing import Final

CHAMPION_NAME: Final = "champion.json"
"""In `models/`: the accepted version and the history of every decision."""
DAY_PATTERN: Final = "????-??-??"
"""Glob pattern of the folders of the prediction log and of the image log, one per day."""
LABEL_REQUEST_NAME: Final = "requested.json"
"""In `feedback/`: the predictions that people are asked to label."""
COLLECTED_NAME: Final = "collected.txt"
"""In `feedback/`: the predictions whose labelled image is in `raw/`, or was."""
FEEDBACK_IMAGES: Final = "feedback"
"""Subfolder of `raw/<Class>/` for images that people labelled."""


def is_feedback_image(path: bytes) -> bool:
    """Return whether a file below `raw/` was put there for a label that was given through the service."""
    parts = path.split(b"/")
    return len(parts) == 3 and parts[1] == FEEDBACK_IMAGES.encode()


class DataPaths:
    """Every folder below one data root. Folders are created when something is written to them."""

    def __init__(self, root: Path, remote_root: str = "") -> None:
        """Lay out the folders below `root`, which is the local copy of `remote_root` if that is not empty."""
        self.root: Final = root
        self.remote_root: Final = remote_root
        """Where the root is in object storage; empty if it is a folder."""
        self.classes: Final = root / "classes.yaml"
        """The classes, the user's own file; without it, the five emotions."""
        self.subjects: Final = root / "subjects.csv"
        """Which person an image in `raw/` shows, the user's own table; there may be none."""
        self.raw: Final = root / "raw"
        """Labelled images, the user's own: below folders that are named after classes."""
        self.raw_source: Final = f"{remote_root}/raw" if remote_root else str(self.raw)
        """Where labelled images are read: the folder `raw`, or its address in object storage."""
        self.external: Final = root / "external"
        """Images of another source, the user's own; what is below folders named after classes is labelled."""
        self.catalogue: Final = root / "catalogue"
        """What the ingest has seen: one row per file, and the decoded pixels."""
        self.splits: Final = root / "splits"
        """Arrays of the three splits, the ledger and the table of assignments."""
        self.models: Final = root / "models"
        """One bundle per version, and `champion.json`."""
        self.predictions: Final = root / "predictions"
        """The service's prediction log."""
        self.image_log: Final = self.predictions / "images"
        """The images that the service stored: `<day>/<prediction id>.<format>`."""
        self.feedback: Final = root / "feedback"
        """Labels that people gave to predictions."""
        self.reports: Final = root / "reports"
        """HTML, JSON and images for people."""
        self.drift_reports: Final = self.reports / "drift"
        """One folder for each drift check, named by its time."""
        self.training_runs: Final = self.reports / "training"
        """One folder for each training run: its checkpoint while it lasts, and its logs."""

    def evaluation_report(self, version: str) -> Path:
        """Return the folder of a model's evaluation report."""
        return self.reports / "evaluation" / version
