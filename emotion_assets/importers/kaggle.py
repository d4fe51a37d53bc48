"""Download the Kaggle data set of 59,099 labelled faces."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.importers.archive import import_folder
from emotion_assets.importers.importer import Importer

DATASET: Final = "samithsachidanandan/human-face-emotions"


def import_kaggle(importer: Importer) -> None:
    """Download the data set and import its images.

    Raises:
        UnusableDataError: the download failed.
    """
    import kagglehub  # noqa: PLC0415 -- takes a second to import

    try:
        source = Path(kagglehub.dataset_download(DATASET))
    except Exception as error:
        raise UnusableDataError(
            f"Kaggle's data set {DATASET} could not be downloaded ({type(error).__name__}). Check the network and the "
            "token of your account in ~/.kaggle/kaggle.json. Without an account, import any labelled faces with `make "
            "import FILE=…`, or draw some with `make demo`."
        ) from error
    import_folder(source, importer)
