"""Hold recent pictures against the accepted model's reference."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pandas as pd

from emotion_assets.core.bundle import REFERENCE_NAME
from emotion_assets.core.classifier import Classifier
from emotion_assets.steps.drift.predictions import answer_folder, read_log
from emotion_assets.steps.drift.report import DriftSource, write_drift_report
from emotion_assets.steps.drift.verdict import MIN_PICTURES, DriftVerdict, judge

WINDOW_PICTURES: Final = 500
"""More rows would only find harmless differences."""


@dataclass(frozen=True, slots=True)
class DriftCheck:
    """A verdict, what it is about, and where its report lies."""

    verdict: DriftVerdict
    source: DriftSource
    report_dir: Path
    html_path: Path | None


def check_drift(bundle_dir: Path, predictions_dir: Path, unlabelled_dir: Path, reports_dir: Path) -> DriftCheck:
    """Compare the latest logged predictions, or `unlabelled/` while there are too few, with the reference.

    Raises:
        BundleMismatchError: the bundle is damaged.
    """
    classifier = Classifier(bundle_dir)
    reference = pd.read_parquet(bundle_dir / REFERENCE_NAME)
    current = read_log(predictions_dir, classifier.version, WINDOW_PICTURES)
    source = DriftSource("predictions", classifier.version)
    if len(current) < MIN_PICTURES and unlabelled_dir.is_dir():
        current, num_refused = answer_folder(unlabelled_dir, classifier)
        source = DriftSource("unlabelled", classifier.version, num_refused)
    verdict = judge(current, reference)
    report_dir = reports_dir / "drift" / datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    html_path = write_drift_report(report_dir, current, reference, verdict, source)
    return DriftCheck(verdict, source, report_dir, html_path)


def newest_report(reports_dir: Path) -> Path | None:
    """Return the folder of the latest complete drift report; None while there is none."""
    complete = sorted(path.parent for path in (reports_dir / "drift").glob("*/verdict.json"))
    return complete[-1] if complete else None
