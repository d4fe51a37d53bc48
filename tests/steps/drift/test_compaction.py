from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from emotion_assets.core.summary import Summary
from emotion_assets.steps.drift import compaction
from emotion_assets.steps.drift.compaction import compact_log
from emotion_assets.steps.drift.prediction_log import PredictionLogReader
from tests.steps.drift.helpers import random_window, write_segment

NOW = datetime(2025, 1, 1, 12, 30, tzinfo=UTC)


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    """Three segments of past hours, two of them of the same hour, and one of the present hour."""
    for number, hour in enumerate((10, 11, 11, 12)):
        write_segment(tmp_path, random_window(5, seed=number), hour=hour, second=10 * number, host=f"host{number}")
    return tmp_path


def read(log_dir: Path, limit: int = 100) -> pd.DataFrame:
    return PredictionLogReader(log_dir, limit).latest("v1")


def test_past_hours_become_parquet(log_dir: Path) -> None:
    """Two files of an hour each, and the present hour's segment stays for its writer."""
    report = compact_log(log_dir, NOW)

    assert (report.num_segments, report.num_new_records, report.num_hours) == (3, 15, 2)
    assert [path.name[:11] for path in log_dir.glob("*/*.jsonl")] == ["20250101T12"]
    files = sorted(log_dir.rglob("*.parquet"))
    assert [path.name for path in files] == ["10.parquet", "11.parquet"]
    assert report.size_bytes == sum(path.stat().st_size for path in files)
    assert report.summary() == Summary(values=asdict(report))


def test_the_last_hour_waits_for_its_writers(log_dir: Path) -> None:
    """A batch may be written some seconds after the hour."""
    assert compact_log(log_dir, datetime(2025, 1, 1, 12, 2, tzinfo=UTC)).num_hours == 1
    assert compact_log(log_dir, datetime(2025, 1, 1, 12, 6, tzinfo=UTC)).num_hours == 2


def test_readers_see_the_same_before_and_after(log_dir: Path) -> None:
    """The log does not change for a reader, for any number of rows."""
    before = {limit: read(log_dir, limit) for limit in (3, 8, 100)}
    compact_log(log_dir, NOW)

    for limit, table in before.items():
        assert read(log_dir, limit).equals(table)


def test_a_late_segment_joins_its_hour(log_dir: Path) -> None:
    """A second compaction adds to the hour's file."""
    compact_log(log_dir, NOW)
    write_segment(log_dir, random_window(4, seed=9), hour=10, host="host9")

    report = compact_log(log_dir, NOW)

    assert (report.num_new_records, report.num_hours) == (4, 2)
    assert len(read(log_dir)) == 24


def test_a_kill_before_the_segments_are_removed_duplicates_nothing(
    log_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parquet and segment stand side by side then; readers drop duplicates, and so does the next compaction."""
    with monkeypatch.context() as patched:
        patched.setattr(compaction.Path, "unlink", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            compact_log(log_dir, NOW)

    assert len(list(log_dir.rglob("10.parquet"))) == 1
    assert len(read(log_dir)) == 20
    compact_log(log_dir, NOW)
    assert len(read(log_dir)) == 20


def test_torn_lines_are_counted(log_dir: Path) -> None:
    """A line that a kill cut off is not a record."""
    path = next(log_dir.glob("*/20250101T10*.jsonl"))
    path.write_bytes(path.read_bytes()[:-10])

    report = compact_log(log_dir, NOW)

    assert (report.num_new_records, report.num_malformed_lines) == (14, 1)


def test_an_empty_segment_is_removed(log_dir: Path) -> None:
    """A power cut may leave one; the hours behind it are compacted all the same."""
    empty = log_dir / "2025-01-01" / "20250101T080000000000-host9-1.jsonl"
    empty.touch()

    report = compact_log(log_dir, NOW)

    assert (report.num_segments, report.num_new_records) == (4, 15)
    assert not empty.exists()
    assert len(read(log_dir)) == 20


def test_an_empty_log_has_nothing_to_compact(tmp_path: Path) -> None:
    """A service that never predicted has no log."""
    assert compact_log(tmp_path, NOW).num_hours == 0
