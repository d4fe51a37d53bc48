"""Import labelled faces: `python -m emotion_assets.importers FILE`, or `--kaggle` in place of the file."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Final

from emotion_assets.core.classes import read_classes
from emotion_assets.core.errors import EmotionError, UnusableDataError
from emotion_assets.core.layout import DataPaths
from emotion_assets.core.remote import is_remote
from emotion_assets.core.settings import EmotionSettings
from emotion_assets.importers.archive import import_archive, import_folder
from emotion_assets.importers.importer import Importer
from emotion_assets.importers.table import TABLE_SUFFIX, import_table
from emotion_assets.steps.ingest.export import path_text
from emotion_assets.steps.ingest.scan import FolderScan, SourceFile

KAGGLE_DATASET: Final = "samithsachidanandan/human-face-emotions"
"""59,099 labelled faces."""


def main() -> None:
    """Import what the arguments name, and say what the next ingest will find."""
    parser = argparse.ArgumentParser(prog="python -m emotion_assets.importers", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, help="a zip or tar archive, a table of pixels (CSV), or a folder")
    parser.add_argument("--kaggle", action="store_true", help="download the Kaggle data set")
    parser.add_argument("--hold-out", metavar="FOLDER", help="put this part, such as test, into external/ instead")
    arguments = parser.parse_args()
    if arguments.kaggle == bool(arguments.file):
        parser.error("name either a file (FILE=faces.zip) or --kaggle")
    try:
        paths = EmotionSettings.load().paths
        source = arguments.file and arguments.file.expanduser()  # zsh leaves FILE=~/… to us
        for line in [*import_faces(paths, source, arguments.hold_out), *describe_raw(paths)]:
            sys.stdout.write(f"{line}\n")
    except EmotionError as error:
        sys.exit(str(error))


def import_faces(paths: DataPaths, source: Path | None, held_out: str | None) -> list[str]:
    """Import a file or folder, or the Kaggle data set if it is None; return lines on what was written.

    Raises:
        UnusableDataError: the source cannot be read or downloaded, or the data root is in object storage.
    """
    if is_remote(paths.raw_source):
        raise UnusableDataError(
            f"{paths.raw_source} is in object storage. Import into a folder and copy its raw/ there."
        )
    name = source.name.split(".")[0].strip() or "import" if source else "kaggle"
    importer = Importer(paths, name, held_out)
    source = source or _download_from_kaggle()
    if source.is_dir():
        inner, outer = sorted((source.resolve(), paths.raw.resolve()), key=lambda path: len(path.parts), reverse=True)
        if inner.is_relative_to(outer):
            raise UnusableDataError(
                f"{source} cannot be imported into {paths.raw}: one is in the other. Its images are there already, or "
                "move it elsewhere."
            )
        import_folder(source, importer)
    elif not source.is_file():
        raise UnusableDataError(f"There is no file {source}. Name an archive, a table or a folder.")
    elif not os.access(source, os.R_OK):
        raise UnusableDataError(f"{source} cannot be read. Check its permissions.")
    elif source.name.casefold().endswith(TABLE_SUFFIX):
        with source.open("rb") as stream:
            import_table(stream, importer, [])
    else:
        import_archive(source, importer)
    return list(importer.report())


def _download_from_kaggle() -> Path:
    import kagglehub  # noqa: PLC0415 -- takes a second to import

    try:
        return Path(kagglehub.dataset_download(KAGGLE_DATASET))
    except Exception as error:
        raise UnusableDataError(
            f"Kaggle's data set {KAGGLE_DATASET} could not be downloaded ({type(error).__name__}). Check the network "
            "and the token of your account in ~/.kaggle/kaggle.json. Without an account, import any labelled faces "
            "with `make import FILE=…`, or draw some with `make demo`."
        ) from error


def describe_raw(paths: DataPaths) -> list[str]:
    """Return lines on what an ingest will find in `raw/`: files by class, and what has none."""
    counts: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for entry in FolderScan(paths.raw, read_classes(paths.classes)):
        if isinstance(entry, SourceFile):
            counts[entry.label] += 1
        else:
            skipped[entry.reason] += entry.num_files
            examples.setdefault(entry.reason, f"raw/{path_text(entry.path)}")
    found = ", ".join(f"{label} {number:,}" for label, number in sorted(counts.items())) or "no labelled images"
    problems = [
        f"{number:,} not used, such as {examples[reason]}: {reason}" for reason, number in skipped.most_common()
    ]
    return [f"raw/ has {found}.", *problems, *(["Next: `make ui`, then Materialize all."] if counts else [])]


if __name__ == "__main__":
    main()
