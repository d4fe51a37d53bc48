"""List what is older than its retention, and remove it if told to.

Raw images, labels, catalogue and the champion are never removed. Also a command:
`python -m emotion_assets.steps.maintenance.retention DATA_DIR [--days 90] [--apply]`.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from emotion_assets.core.errors import EmotionError, UnusableDataError
from emotion_assets.core.layout import DAY_PATTERN, DataPaths
from emotion_assets.core.remote import local_root
from emotion_assets.steps.drift.prediction_log import HISTORY_NAME
from emotion_assets.steps.packing.models import clean_models, removable_models

DAYS: Final = 90
_SECONDS_PER_DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class Expired:
    """Something that may be removed."""

    kind: str
    path: Path
    days: float
    """Its age."""
    size_bytes: int


def find_expired(paths: DataPaths, days: float = DAYS) -> list[Expired]:
    """Return the predictions, stored images, drift reports and training logs older than `days`, and old models.

    Raises:
        UnusableDataError: `days` is less than one, so that running steps could lose their files.
    """
    if days < 1:
        raise UnusableDataError(f"DAYS={days:g} would remove what is in use. Name at least one day.")
    found = [
        each
        for kind, entries in (
            ("predictions", sorted(paths.predictions.glob(DAY_PATTERN))),
            ("predictions", _entries(paths.predictions / HISTORY_NAME)),
            ("stored images", _entries(paths.image_log)),
            ("drift report", _entries(paths.drift_reports)),
            ("training log", [path for path in _entries(paths.training_runs) if path.is_dir()]),
            ("training log", _entries(paths.training_runs / ".ray")),
            ("trial log", _entries(paths.reports / "tuning" / "runs")),
        )
        for path in entries
        if (each := _describe(kind, path)).days > days
    ]
    return found + [_describe("model", paths.models / version) for version in removable_models(paths)]


def remove_expired(paths: DataPaths, expired: list[Expired]) -> None:
    """Remove what `find_expired` returned.

    Raises:
        OSError: something belongs to another user, for example a container's; it names the file.
    """
    for each in expired:
        if each.kind == "model":
            continue
        if each.path.is_dir():
            shutil.rmtree(each.path)
        else:
            each.path.unlink(missing_ok=True)
    if any(each.kind == "model" for each in expired):
        clean_models(paths)


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []


def _describe(kind: str, path: Path) -> Expired:
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    stats = [file.stat() for file in files if file.exists()]
    newest = max((stat.st_mtime for stat in stats), default=time.time())
    with contextlib.suppress(ValueError):
        # Copied or compacted, files of a day are younger than what is in them.
        newest = datetime.strptime(path.name[:10], "%Y-%m-%d").replace(tzinfo=UTC).timestamp() + _SECONDS_PER_DAY
    return Expired(kind, path, (time.time() - newest) / _SECONDS_PER_DAY, sum(stat.st_size for stat in stats))


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_dir", type=local_root)
    parser.add_argument("--days", type=float, default=DAYS)
    parser.add_argument("--apply", action="store_true", help="remove what is listed")
    options = parser.parse_args()
    paths = DataPaths(options.data_dir)
    try:
        expired = find_expired(paths, options.days)
        lines = [
            f"{each.kind:14} {each.days:6.0f} days {each.size_bytes / 1e6:10.1f} MB  {each.path}" for each in expired
        ]
        items = "item" if len(expired) == 1 else "items"
        total = f"{len(expired)} {items}, {sum(each.size_bytes for each in expired) / 1e6:.1f} MB"
        if options.apply:
            remove_expired(paths, expired)
            lines.append(f"Removed: {total}.")
        else:
            lines.append(f"{total} would be removed; nothing was. Add APPLY=1 to remove them.")
    except (EmotionError, OSError) as error:
        sys.exit(str(error))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
