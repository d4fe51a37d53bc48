"""Download the Kaggle data set of 59,099 labelled faces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.importers.archive import import_folder
from emotion_assets.importers.importer import Importer

DATASET: Final = "samithsachidanandan/human-face-emotions"


def import_kaggle(importer: Importer, fetch: Callable[[str], str] | None = None) -> None:
    """Download the data set and import its images.

    Args:
        importer: writes the images.
        fetch: downloads a data set by its name and returns its folder; by default kagglehub does.

    Raises:
        UnusableDataError: the download failed.
    """
    try:
        source = Path((fetch or _fetch_with_kagglehub)(DATASET))
    except Exception as error:
        raise UnusableDataError(
            f"Kaggle's data set {DATASET} could not be downloaded ({type(error).__name__}). Check the network and the "
            "token of your account in ~/.kaggle/kaggle.json. Without an account, import any labelled faces with `make "
            "import FILE=…`, or draw some with `make demo`."
        ) from error
    import_folder(source, importer)


def _fetch_with_kagglehub(name: str) -> str:
    import kagglehub  # noqa: PLC0415 -- takes a second to import

    return str(kagglehub.dataset_download(name))
