"""The layout of the data root: where the pipeline and the service read and write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

CHAMPION_NAME: Final = "champion.json"
"""In `models/`: the accepted version and the history of every decision."""
DAY_PATTERN: Final = "????-??-??"
"""Glob pattern of the folders of the prediction log and of the image log, one per day."""
LABEL_REQUEST_NAME: Final = "requested.json"
"""In `feedback/`: the predictions that people are asked to label."""


FEEDBACK_IMAGES: Final = "feedback"
"""Subfolder of `raw/<Class>/` for images that people labelled."""


@dataclass(frozen=True, slots=True)
class DataPaths:
    """Every folder below one data root. Folders are created when something is written to them."""

    root: Path
    remote_root: str = ""
    """Where the root is in object storage; empty if it is a folder."""

    @property
    def classes(self) -> Path:
        """The classes, the user's own file; without it, the five emotions."""
        return self.root / "classes.yaml"

    @property
    def subjects(self) -> Path:
        """Which person an image in `raw/` shows, the user's own table; there may be none."""
        return self.root / "subjects.csv"

    @property
    def raw(self) -> Path:
        """Labelled images, the user's own: below folders that are named after classes."""
        return self.root / "raw"

    @property
    def raw_source(self) -> str:
        """Where labelled images are read: the folder `raw`, or its address in object storage."""
        return f"{self.remote_root}/raw" if self.remote_root else str(self.raw)

    @property
    def external(self) -> Path:
        """Images of another source, the user's own; what is below folders named after classes is labelled."""
        return self.root / "external"

    @property
    def catalogue(self) -> Path:
        """What the ingest has seen: one row per file, and the decoded pixels."""
        return self.root / "catalogue"

    @property
    def splits(self) -> Path:
        """Arrays of the three splits, the ledger and the table of assignments."""
        return self.root / "splits"

    @property
    def models(self) -> Path:
        """One bundle per version, and `champion.json`."""
        return self.root / "models"

    @property
    def predictions(self) -> Path:
        """The service's prediction log."""
        return self.root / "predictions"

    @property
    def image_log(self) -> Path:
        """The images that the service stored: `<day>/<prediction id>.<format>`."""
        return self.predictions / "images"

    @property
    def feedback(self) -> Path:
        """Labels that people gave to predictions."""
        return self.root / "feedback"

    @property
    def reports(self) -> Path:
        """HTML, JSON and images for people."""
        return self.root / "reports"

    @property
    def drift_reports(self) -> Path:
        """One folder for each drift check, named by its time."""
        return self.reports / "drift"

    @property
    def training_runs(self) -> Path:
        """One folder for each training run: its checkpoint while it lasts, and its logs."""
        return self.reports / "training"

    def evaluation_report(self, version: str) -> Path:
        """Return the folder of a model's evaluation report."""
        return self.reports / "evaluation" / version
