"""Turn closed segments of the prediction log into Parquet, an hour a file: a tenth of the size, quick to read.

A segment is closed when its hour is over: the service starts another one then. The Parquet file appears whole before
its segments go, so a kill in between leaves some records twice, and readers count each prediction once.
"""

from __future__ import annotations

import io
import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pandas as pd

from emotion_assets.core.files import write_atomically
from emotion_assets.core.layout import DAY_PATTERN
from emotion_assets.steps.drift.prediction_log import COLUMNS, HISTORY_NAME, read_parts

_SEGMENT: Final = re.compile(r"(\d{8}T\d{2})\d{4}.*\.jsonl")
# A writer may hold a last batch for a moment when the hour ends.
_GRACE: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class CompactionReport:
    """What was done, and what is there now."""

    num_segments: int
    num_new_records: int
    num_torn_lines: int
    num_hours: int
    num_bytes: int


def compact_log(predictions_dir: Path, now: datetime | None = None) -> CompactionReport:
    """Write `history/<date>/<hour>.parquet` from the segments of past hours, then remove these segments.

    Args:
        predictions_dir: the service's log.
        now: the present moment; UTC now if left out.
    """
    limit = (now or datetime.now(UTC)) - _GRACE
    hours: dict[str, list[Path]] = defaultdict(list)
    for path in predictions_dir.glob(f"{DAY_PATTERN}/*.jsonl"):
        match = _SEGMENT.fullmatch(path.name)
        if match and match[1] < f"{limit:%Y%m%dT%H}":
            hours[match[1]].append(path)
    num_records = num_torn = 0
    for hour, paths in sorted(hours.items()):
        target = predictions_dir / HISTORY_NAME / f"{hour[:4]}-{hour[4:6]}-{hour[6:8]}" / f"{hour[9:]}.parquet"
        parts = [pd.DataFrame(columns=list(COLUMNS)), *(read_parts(target) if target.exists() else ())]
        for path in paths:
            found = list(read_parts(path))
            num_found = sum(map(len, found))
            num_records += num_found
            num_torn += _num_lines(path) - num_found
            parts += found
        table = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
        file = io.BytesIO()
        table.drop_duplicates("prediction_id").sort_values("time").to_parquet(file, index=False, compression="zstd")
        write_atomically(target, file.getvalue())
        for path in paths:
            path.unlink()
            if not any(path.parent.iterdir()):
                path.parent.rmdir()
    there = list((predictions_dir / HISTORY_NAME).glob("*/*.parquet"))
    num_bytes = sum(path.stat().st_size for path in there)
    return CompactionReport(sum(map(len, hours.values())), num_records, num_torn, len(there), num_bytes)


def _num_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)
