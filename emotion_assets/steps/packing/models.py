"""The accepted models side by side, the step back to an earlier one, and what is kept.

Also a command: `python -m emotion_assets.steps.packing.models DATA_DIR list|rollback|clean [VERSION]`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from emotion_assets.core.bundle import MANIFEST_NAME, read_manifest
from emotion_assets.core.errors import BundleMismatchError, EmotionError
from emotion_assets.core.layout import MODELS
from emotion_assets.steps.registry.registry import SCORES_NAME, Registry

KEEP_ACCEPTED: Final = 5
"""Accepted models that are kept beside the champion, to go back to."""
KEEP_REJECTED: Final = 3
"""Rejected candidates that are kept, to look at."""

_COLUMNS: Final = ("version", "state", "accuracy", "macro_f1", "calibration_error", "data", "reason")


def list_models(models_dir: Path, reports_dir: Path) -> list[dict[str, str]]:
    """Return a row for each complete bundle, newest first: version, state, test scores, data and the last reason."""
    registry = Registry(models_dir)
    champion, accepted, back = registry.champion(), set(registry.accepted()), registry.rolled_back()
    last = {entry.get("candidate", entry.get("rolled_back_to")): entry for entry in registry.history()}
    rows = []
    for version in reversed(registry.versions()):
        entry = last.get(version, {})
        if version == champion:
            state = "champion"
        elif version in back:
            state = "rolled back"
        elif version in accepted:
            state = "accepted"
        else:
            state = "rejected" if entry else "not judged"
        scores = _scores(reports_dir / "evaluation" / version / SCORES_NAME)
        rows.append(
            {
                "version": version,
                "state": state,
                **{name: f"{scores[name]:.4f}" if scores else "" for name in _COLUMNS[2:5]},
                "data": _data(models_dir / version),
                "reason": str(entry.get("force_reason") or entry.get("reason") or (entry.get("reasons") or [""])[0]),
            }
        )
    return rows


def _data(bundle_dir: Path) -> str:
    try:
        return read_manifest(bundle_dir).data_fingerprint[:12]
    except BundleMismatchError:
        return "unreadable"


def _scores(path: Path) -> dict[str, Any] | None:
    try:
        test: dict[str, Any] = json.loads(path.read_text())["test"]
    except (OSError, ValueError, KeyError):
        return None
    return test


def roll_back(models_dir: Path, reports_dir: Path, version: str | None = None, reason: str = "") -> str:
    """Accept an earlier model again, pack it, and return its version; a running service follows in seconds.

    Raises:
        MissingModelError: there is none to go back to.
        BundleMismatchError: its bundle is damaged, or cannot be packed; the champion stays.
        OSError: the disk is full; the champion stays.
    """
    from emotion_assets.steps.packing.bento import build_bento, read_labels

    registry = Registry(models_dir)
    with registry.locked():
        target = registry.earlier_champion(version)
        labels = {"data_fingerprint": _data(models_dir / target)}
        # Under the same lock, or a pack that began before could end after this one and leave its own as the latest.
        # The pointer moves last: after a failure, the same step back can be tried again.
        build_bento(models_dir / target, labels | read_labels(reports_dir / "evaluation" / target))
        registry.roll_back(target, reason)
    return target


def clean_models(
    models_dir: Path,
    reports_dir: Path,
    *,
    keep_accepted: int = KEEP_ACCEPTED,
    keep_rejected: int = KEEP_REJECTED,
    log: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Remove old judged models with their reports, bentos and stored copies; return their versions.

    The champion, the champions before it and the newest rejected ones stay, as many as are asked for; so does
    everything that no gate has judged yet, and what a running service was started from. Where fewer were champions
    before it, those that were rolled back stay, too. The history keeps every decision.
    """
    from emotion_assets.steps.packing.bento import delete_packed, is_served

    registry = Registry(models_dir)
    with registry.locked():
        champion, accepted, line = registry.champion(), registry.accepted(), registry.line()
        judged = {entry["candidate"] for entry in registry.history() if "candidate" in entry}
        complete = [version for version in registry.versions() if version in judged]
        in_order = [version for version in accepted if version not in line] + line
        earlier = [version for version in in_order if version in complete and version != champion]
        rejected = [version for version in complete if version not in accepted]
        stay = {champion, *_last(earlier, keep_accepted), *_last(rejected, keep_rejected)}
        removed = [version for version in complete if version not in stay]
        for version in [version for version in removed if is_served(version)]:
            log(f"{version} stays: a running service was started from it, and may have to start a worker again")
            removed.remove(version)
        for version in removed:
            log(f"Removing {version}")
            delete_packed(version)
            # Without its manifest a bundle is not a model any more, whatever is killed after this.
            (models_dir / version / MANIFEST_NAME).unlink()
            shutil.rmtree(models_dir / version)
            shutil.rmtree(reports_dir / "evaluation" / version, ignore_errors=True)
    return removed


def _last(versions: list[str], number: int) -> list[str]:
    return versions[max(0, len(versions) - number) :]


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("what", choices=("list", "rollback", "clean"))
    parser.add_argument("version", nargs="?", default=None)
    options = parser.parse_args()
    models_dir, reports_dir = options.data_dir / MODELS, options.data_dir / "reports"
    try:
        if options.what == "list":
            lines = _table(list_models(models_dir, reports_dir))
        elif options.what == "rollback":
            version = roll_back(models_dir, reports_dir, options.version or None, "by command")
            lines = [f"{version} is accepted now and packed; a running service follows within seconds."]
        else:
            removed = clean_models(models_dir, reports_dir)
            lines = [f"Removed: {', '.join(removed) or 'nothing'}."]
    except (EmotionError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _table(rows: list[dict[str, str]]) -> list[str]:
    if not rows:
        return ["There is not a model yet. Run the job `retrain`."]
    shown = [dict(zip(_COLUMNS, _COLUMNS, strict=True)), *rows]
    widths = {name: max(len(row[name]) for row in shown) for name in _COLUMNS}
    return ["  ".join(row[name].ljust(widths[name]) for name in _COLUMNS).rstrip() for row in shown]


if __name__ == "__main__":
    sys.exit(main())
