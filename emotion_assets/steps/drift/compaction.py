"""Compact closed segments of the prediction log into Parquet, one file per hour: a tenth of the size, fast to read.

A segment is closed when its hour is over. The Parquet file appears atomically before its segments are removed, so a
kill in between leaves some records twice; readers drop duplicates.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pandas as pd

from emotion_assets.core.files import write_atomically
from emotion_assets.core.layout import DAY_PATTERN
from emotion_assets.core.summary import Summary
from emotion_assets.steps.drift.prediction_log import HISTORY_NAME, LOG_COLUMNS, read_parts

_SEGMENT: Final = re.compile(r"(\d{8}T\d{2})\d{4}.*\.jsonl")
# A writer may hold a last batch for a moment when the hour ends.
_GRACE: Final = timedelta(minutes=5)


@dataclass(slots=True)
class CompactionReport:
    """What was compacted, and the size of the history."""

    num_segments: int = 0
    num_new_records: int = 0
    num_malformed_lines: int = 0
    num_hours: int = 0
    size_bytes: int = 0

    def summary(self) -> Summary:
        """Return the counts."""
        return Summary(values=asdict(self))


def compact_log(predictions_dir: Path, now: datetime | None = None) -> CompactionReport:
    """Write `history/<date>/<hour>.parquet` from the segments of hours before `now` (UTC), then remove them."""
    limit = (now or datetime.now(UTC)) - _GRACE
    hours: dict[str, list[Path]] = defaultdict(list)
    for path in predictions_dir.glob(f"{DAY_PATTERN}/*.jsonl"):
        match = _SEGMENT.fullmatch(path.name)
        if match and match[1] < f"{limit:%Y%m%dT%H}":
            hours[match[1]].append(path)
    report = CompactionReport(num_segments=sum(map(len, hours.values())))
    for hour, paths in sorted(hours.items()):
        _compact_hour(predictions_dir, hour, paths, report)
    history = list((predictions_dir / HISTORY_NAME).glob("*/*.parquet"))
    report.num_hours, report.size_bytes = len(history), sum(path.stat().st_size for path in history)
    return report


def _compact_hour(predictions_dir: Path, hour: str, paths: list[Path], report: CompactionReport) -> None:
    target = predictions_dir / HISTORY_NAME / f"{hour[:4]}-{hour[4:6]}-{hour[6:8]}" / f"{hour[9:]}.parquet"
    tables = [pd.DataFrame(columns=list(LOG_COLUMNS)), *(read_parts(target) if target.exists() else ())]
    for path in paths:
        found = list(read_parts(path))
        num_found = sum(map(len, found))
        report.num_new_records += num_found
        report.num_malformed_lines += _count_lines(path) - num_found
        tables += found
    table = pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
    rows = table.drop_duplicates("prediction_id").sort_values("time")
    write_atomically(target, rows.to_parquet(index=False, compression="zstd"))
    for path in paths:
        path.unlink()
        if not any(path.parent.iterdir()):
            path.parent.rmdir()


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)
