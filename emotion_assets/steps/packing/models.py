"""Roll back to an earlier model, and remove old ones.

Also a command: `python -m emotion_assets.steps.packing.models DATA_DIR list|rollback|clean [VERSION]`.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from typing import Final

from emotion_assets.core.bundle import MANIFEST_NAME, read_manifest
from emotion_assets.core.errors import EmotionError
from emotion_assets.core.layout import DataPaths
from emotion_assets.core.remote import local_root
from emotion_assets.steps.registry.registry import Registry, model_rows

KEEP_ACCEPTED: Final = 5
"""Accepted models that are kept besides the champion."""
KEEP_REJECTED: Final = 3

_logger = logging.getLogger(__name__)


def roll_back(paths: DataPaths, version: str | None = None, reason: str = "") -> str:
    """Accept an earlier model again, pack it, and return its version; a running service follows in seconds.

    Raises:
        MissingModelError: there is none to go back to.
        BundleMismatchError: its bundle is damaged, or cannot be packed; the champion stays.
        OSError: the disk is full; the champion stays.
    """
    from emotion_assets.steps.packing.bento import pack_version

    registry = Registry(paths.models)
    with registry.locked():
        target = registry.earlier_champion(version)
        # The pointer moves last: after a failure, the same rollback can be tried again.
        pack_version(paths, target)
        registry.roll_back(target, reason)
    return target


def removable_models(
    paths: DataPaths, *, keep_accepted: int = KEEP_ACCEPTED, keep_rejected: int = KEEP_REJECTED
) -> list[str]:
    """Return old evaluated models, except those that a running service was started from.

    The service restarts killed workers from that bento.
    """
    from emotion_assets.steps.packing.bento import served_versions

    removable = Registry(paths.models).select_removable(keep_accepted=keep_accepted, keep_rejected=keep_rejected)
    served = served_versions() if removable else set()
    return [version for version in removable if version not in served]


def clean_models(
    paths: DataPaths, *, keep_accepted: int = KEEP_ACCEPTED, keep_rejected: int = KEEP_REJECTED
) -> list[str]:
    """Remove what `removable_models` returns with reports and bentos; the history keeps every decision."""
    from emotion_assets.steps.packing.bento import delete_packed

    with Registry(paths.models).locked():
        removed = removable_models(paths, keep_accepted=keep_accepted, keep_rejected=keep_rejected)
        for version in removed:
            _logger.info("Removing %s", version)
            delete_packed(version)
            # Without its manifest a bundle is not a model, whatever is killed after this.
            (paths.models / version / MANIFEST_NAME).unlink()
            shutil.rmtree(paths.models / version)
            shutil.rmtree(paths.evaluation_report(version), ignore_errors=True)
    return removed


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_dir", type=local_root)
    parser.add_argument("command", choices=("list", "rollback", "clean"))
    parser.add_argument("version", nargs="?")
    options = parser.parse_args()
    paths = DataPaths(options.data_dir)
    try:
        if options.command == "list":
            text = _table(model_rows(paths))
        elif options.command == "rollback":
            version = roll_back(paths, options.version or None, "by command")
            classes = ", ".join(read_manifest(paths.models / version).emotions)
            text = f"{version} ({classes}) is accepted and packed; a running service follows within seconds."
        else:
            text = f"Removed: {', '.join(clean_models(paths)) or 'nothing'}."
    except (EmotionError, OSError) as error:
        sys.exit(str(error))
    sys.stdout.write(f"{text}\n")


def _table(rows: list[dict[str, str]]) -> str:
    if not rows:
        return "There are no models yet. Run the job `retrain`."
    shown = [dict(zip(rows[0], rows[0], strict=True)), *rows]
    widths = {name: max(len(row[name]) for row in shown) for name in rows[0]}
    return "\n".join("  ".join(row[name].ljust(widths[name]) for name in widths).rstrip() for row in shown)


if __name__ == "__main__":
    main()
