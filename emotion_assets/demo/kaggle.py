"""Download the Kaggle data set of 59,099 labelled faces into `raw/`: `python -m emotion_assets.demo.kaggle raw_dir`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from emotion_assets.core.classes import emotion_from_folder
from emotion_assets.core.errors import UnusableDataError

DATASET: Final = "samithsachidanandan/human-face-emotions"
_FOLDER: Final = "kaggle"


def download_faces(raw_dir: Path, fetch: Callable[[str], str] | None = None) -> int:
    """Download the data set and copy its images to `raw_dir/<Emotion>/kaggle/`.

    Existing files stay, so a second call completes an interrupted copy.

    Args:
        raw_dir: the folder of labelled images.
        fetch: downloads a data set by its name and returns its folder; by default kagglehub does.

    Returns:
        The number of files copied.

    Raises:
        UnusableDataError: the download failed, or has no folder named after an emotion.
    """
    try:
        source = Path((fetch or _fetch_with_kagglehub)(DATASET))
    except Exception as error:
        raise UnusableDataError(
            f"Kaggle's data set {DATASET} could not be downloaded ({type(error).__name__}). "
            f"Check the network and the token of your account in ~/.kaggle/kaggle.json. Without an account, put any "
            f"labelled faces into {raw_dir}/<Emotion>/, or draw demo faces with `make demo`."
        ) from error
    folders = [path for path in source.rglob("*") if path.is_dir() and emotion_from_folder(path.name)]
    if not folders:
        raise UnusableDataError(f"{DATASET} was downloaded to {source}, but no folder there is named after an emotion.")
    return sum(_copy_folder(folder, raw_dir, folder.parent.relative_to(source)) for folder in sorted(folders))


def _fetch_with_kagglehub(name: str) -> str:
    import kagglehub  # noqa: PLC0415 -- takes a second to import

    return str(kagglehub.dataset_download(name))


def _copy_folder(folder: Path, raw_dir: Path, parent: Path) -> int:
    """Copy a folder of images below `<Emotion>/kaggle/<parent>/`, as the data set may have a folder name twice."""
    emotion = emotion_from_folder(folder.name)
    assert emotion
    target = raw_dir / emotion.capitalize() / _FOLDER / parent
    target.mkdir(parents=True, exist_ok=True)
    num_copied = 0
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        copy = target / path.name
        if not copy.exists():
            # Renamed once it is complete, so that no half-copied image is ingested.
            temporary = copy.with_name(f".{copy.name}.part")
            shutil.copyfile(path, temporary)
            temporary.replace(copy)
            num_copied += 1
    return num_copied


def main() -> int:
    """Download into the folder given as the only argument."""
    raw_dir = Path(sys.argv[1])
    try:
        num_copied = download_faces(raw_dir)
    except UnusableDataError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{num_copied:,} new images are in {raw_dir}. Next: `make ui`, then Materialize all.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
