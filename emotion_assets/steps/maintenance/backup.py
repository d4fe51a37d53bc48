"""Back up a data root as one archive, and restore it.

Also a command: `python -m emotion_assets.steps.maintenance.backup DATA_DIR create|restore FILE`.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Final

from emotion_assets.core.errors import EmotionError, UnusableDataError
from emotion_assets.core.files import atomic_file, files_below, locked
from emotion_assets.core.layout import DataPaths
from emotion_assets.core.remote import local_root
from emotion_assets.steps.ingest.catalogue import LOCK_NAME as CATALOGUE_LOCK_NAME
from emotion_assets.steps.registry.registry import Registry
from emotion_assets.steps.splits.splits import LOCK_NAME as SPLITS_LOCK_NAME
from emotion_assets.steps.training.run import TRAINING_LOCK_NAME

_README_NAME: Final = "README.md"
"""A fresh checkout has one."""

_logger = logging.getLogger(__name__)


def create_backup(paths: DataPaths, archive: Path) -> int:
    """Write everything below the data root to a tar archive, compressed unless its name ends in `.tar`.

    Running steps are waited for, so that no artefact is half written. A service may go on: what it logs meanwhile may
    be missing.

    Returns:
        How many files the archive has.

    Raises:
        UnusableDataError: there is no such data root, or the archive would lie in it.
        OSError: the archive cannot be written; the message names it.
    """
    if not paths.root.is_dir():
        raise UnusableDataError(f"There is no data root {paths.root}. Set EMOTION_DATA_DIR.")
    if archive.resolve().is_relative_to(paths.root.resolve()):
        raise UnusableDataError(f"{archive} lies in the data root. Write it elsewhere, best to another disk.")
    count = 0
    with (
        # Locks in the order in which the steps take them.
        locked(paths.models / TRAINING_LOCK_NAME),
        Registry(paths.models).locked(),
        locked(paths.splits / SPLITS_LOCK_NAME),
        locked(paths.catalogue / CATALOGUE_LOCK_NAME),
        atomic_file(archive) as file,
        tarfile.open(fileobj=file, mode="w" if archive.suffix == ".tar" else "w:gz") as tar,
    ):
        for path in files_below(paths.root):
            if not path.name.endswith((".tmp", ".lock")):
                with contextlib.suppress(FileNotFoundError):  # the service has moved on
                    tar.add(path, path.relative_to(paths.root), recursive=False)
                    count += 1
    return count


def restore_backup(archive: Path, paths: DataPaths) -> int:
    """Restore a data root that is missing or empty, but for a README.md, from an archive of `create_backup`.

    The data root appears as a whole in the end, or not at all.

    Returns:
        How many files were restored.

    Raises:
        UnusableDataError: the data root has files, or the archive is damaged.
    """
    root = paths.root
    readme = root / _README_NAME
    if root.exists() and any(path != readme for path in root.iterdir()):
        raise UnusableDataError(f"{root} has files already. Move it away, or restore to another EMOTION_DATA_DIR.")
    temporary = root.with_name(f".{root.name}.restore")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with tarfile.open(archive) as tar:
            members = tar.getmembers()
            tar.extractall(temporary, members, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UnusableDataError(f"{archive} cannot be restored ({error}). Use another backup.") from error
    if readme.exists():
        readme.replace(temporary / _README_NAME)
    if root.exists():
        root.rmdir()
    temporary.rename(root)
    return len(members)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_dir", type=local_root)
    parser.add_argument("command", choices=("create", "restore"))
    parser.add_argument("file", type=lambda text: Path(text).expanduser())  # zsh leaves FILE=~/… to us
    options = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    paths = DataPaths(options.data_dir)
    try:
        if options.command == "create":
            text = f"{create_backup(paths, options.file):,} files of {paths.root} are in {options.file}."
        else:
            text = f"{restore_backup(options.file, paths):,} files are back in {paths.root}."
    except (EmotionError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
