"""Back up a data root as one archive, and restore it.

Also a command: `python -m emotion_assets.steps.maintenance.backup DATA_DIR create|restore FILE`.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
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

_TEMPORARY_NAME: Final = ".restore"
_OF_EMPTY_ROOTS: Final = {"README.md", "lost+found", _TEMPORARY_NAME}
"""Of a fresh checkout, of a fresh disk, and of a restore that was killed."""

_logger = logging.getLogger(__name__)


def create_backup(paths: DataPaths, archive: Path) -> int:
    """Write everything below the data root to a tar archive, compressed unless its name ends in `.tar`.

    A folder of the data root may be a link, for example to a larger disk: what it links to is archived. Links below it
    are not followed.

    Waits for running steps, so that no artefact is half written. A service may keep running; its newest records may
    be missing.

    Returns:
        How many files the archive has.

    Raises:
        UnusableDataError: there is no such data root, or the archive is a folder or would lie in the root.
        OSError: the archive cannot be written; the message names it.
    """
    if not paths.root.is_dir():
        raise UnusableDataError(f"There is no data root {paths.root}. Set EMOTION_DATA_DIR.")
    folders = [paths.root, *paths.root.iterdir()]
    if any(archive.resolve().is_relative_to(folder.resolve()) for folder in folders):
        raise UnusableDataError(f"{archive} lies in the data root. Write it elsewhere, best to another disk.")
    if archive.is_dir():
        raise UnusableDataError(f"{archive} is a folder. Name a file in it, such as {archive / 'backup.tar.gz'}.")
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
        os.fchmod(file.fileno(), 0o600)  # it has faces, and the key that signs predictions
        for top in sorted(paths.root.iterdir()):
            source = top.resolve()
            for path in files_below(source) if source.is_dir() else [source]:
                if not path.name.endswith((".tmp", ".lock")):
                    with contextlib.suppress(FileNotFoundError):  # the service has moved on
                        tar.add(path, Path(top.name, path.relative_to(source)), recursive=False)
                        count += 1
    return count


def restore_backup(archive: Path, paths: DataPaths) -> int:
    """Restore a data root that is missing or empty from an archive of `create_backup`.

    It may be a link or a mounted disk. Files move into place once the whole archive has been read.

    Returns:
        How many files were restored.

    Raises:
        UnusableDataError: the data root has files, or the archive is damaged.
    """
    root = paths.root
    root.mkdir(parents=True, exist_ok=True)
    if any(path.name not in _OF_EMPTY_ROOTS for path in root.iterdir()):
        raise UnusableDataError(f"{root} has files already. Move it away, or restore to another EMOTION_DATA_DIR.")
    temporary = root / _TEMPORARY_NAME
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        with tarfile.open(archive) as tar:
            members = tar.getmembers()
            tar.extractall(temporary, members, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UnusableDataError(f"{archive} cannot be restored ({error}). Use another backup.") from error
    # Models last: without them there is no champion.
    for path in sorted(temporary.iterdir(), key=lambda path: path.name == paths.models.name):
        path.replace(root / path.name)
    temporary.rmdir()
    return len(members)


def main() -> None:
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
        sys.exit(str(error))
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()
