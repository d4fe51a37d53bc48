"""The prediction log's past hours become Parquet, and nothing is lost or counted twice."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from emotion_assets.steps.drift import compaction
from emotion_assets.steps.drift.compaction import compact_log
from emotion_assets.steps.drift.prediction_log import read_log
from tests.steps.test_drift import logged, write_log

NOW = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    """Three segments of past hours, two of them of the same hour, and one of the present hour."""
    for number, name in enumerate(("10", "11", "11", "12")):
        stamp = f"20260101T{name}0000{number:06}-host-{number}.jsonl"
        write_log(tmp_path, logged(5, seed=number), name=stamp, start=10 + number)
    return tmp_path


def test_past_hours_become_parquet(log_dir: Path) -> None:
    """Two files of an hour each, and the present hour's segment stays for its writer."""
    compacted = compact_log(log_dir, NOW)

    assert (compacted.num_segments, compacted.num_new_records, compacted.num_hours) == (3, 15, 2)
    assert [path.name for path in log_dir.glob("*/*.jsonl")] == ["20260101T120000000003-host-3.jsonl"]
    assert sorted(path.name for path in log_dir.rglob("*.parquet")) == ["10.parquet", "11.parquet"]


def test_readers_see_the_same_before_and_after(log_dir: Path) -> None:
    """A drift report does not notice, for any number of rows."""
    before = {limit: read_log(log_dir, "v1", limit) for limit in (3, 8, 100)}
    compact_log(log_dir, NOW)

    for limit, table in before.items():
        assert read_log(log_dir, "v1", limit).equals(table)


def test_a_late_segment_joins_its_hour(log_dir: Path) -> None:
    """A second compaction adds to the hour's file."""
    compact_log(log_dir, NOW)
    write_log(log_dir, logged(4, seed=9), name="20260101T105900000000-host-9.jsonl", start=3)
    compacted = compact_log(log_dir, NOW)

    assert (compacted.num_new_records, compacted.num_hours) == (4, 2)
    assert len(read_log(log_dir, "v1", 100)) == 24


def test_what_older_code_logged_is_kept_but_not_judged(log_dir: Path) -> None:
    """Before a statistic was invented no line had it: neither in a segment nor in the history."""
    late = log_dir / "2026-01-01" / "20260101T105900000000-host-9.jsonl"
    write_log(log_dir, logged(4, seed=9), name=late.name, start=3)
    late.write_text(late.read_text().replace('"eyes_minus_cheeks"', '"of_another_time"'))
    compact_log(log_dir, NOW)
    (hour,) = log_dir.rglob("11.parquet")
    pd.read_parquet(hour).drop(columns="eyes_minus_cheeks").to_parquet(hour)
    write_log(log_dir, logged(2, seed=8), name="20260101T115900000000-host-8.jsonl", start=40)
    compact_log(log_dir, NOW)

    assert [len(pd.read_parquet(path)) for path in sorted(log_dir.rglob("*.parquet"))] == [9, 12]
    assert len(read_log(log_dir, "v1", 100)) == 5 + 2 + 5


def test_a_kill_before_the_segments_go_counts_nothing_twice(log_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parquet and segment stand side by side then; the next compaction puts that right."""
    with monkeypatch.context() as patched:
        patched.setattr(compaction.Path, "unlink", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            compact_log(log_dir, NOW)

    assert len(read_log(log_dir, "v1", 100)) == 20
    compact_log(log_dir, NOW)
    assert len(read_log(log_dir, "v1", 100)) == 20


def test_torn_lines_are_counted(log_dir: Path) -> None:
    """What a kill cut off is no record, and is said."""
    path = next(log_dir.glob("*/20260101T10*.jsonl"))
    path.write_bytes(path.read_bytes()[:-10])

    compacted = compact_log(log_dir, NOW)

    assert (compacted.num_new_records, compacted.num_torn_lines) == (14, 1)


def test_an_empty_segment_holds_up_nothing(log_dir: Path) -> None:
    """A power cut may leave one; the hours behind it are compacted all the same."""
    (log_dir / "2026-01-01" / "20260101T080000000000-host-9.jsonl").touch()

    compacted = compact_log(log_dir, NOW)

    assert (compacted.num_segments, compacted.num_new_records) == (4, 15)


def test_nothing_to_do(tmp_path: Path) -> None:
    """A service that never answered leaves nothing to compact."""
    assert compact_log(tmp_path, NOW).num_hours == 0
