"""Labelled images of another source, or a data set's own test part: `external/`."""

from __future__ import annotations

import os
from typing import Final

import numpy as np

from emotion_assets.core.classes import read_classes
from emotion_assets.core.errors import ImageError
from emotion_assets.core.images import IMAGE_SIZE_PX, read_image
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.ingest.scan import FolderScan, SourceFile
from emotion_assets.steps.splits.splits import Split

_MAX_IMAGES: Final = 3000


def read_external(paths: DataPaths, emotions: tuple[str, ...]) -> Split:
    """Read up to 3,000 labelled images, those below folders that are named after classes; there may be none.

    Unreadable files and folders are skipped, and classes that are none of `emotions`.
    """
    folder = paths.external
    scan = FolderScan(folder, read_classes(paths.classes))
    labelled = sorted((entry.path, entry.label) for entry in scan if isinstance(entry, SourceFile))
    found = [(folder / os.fsdecode(path), emotions.index(label)) for path, label in labelled if label in emotions]
    if len(found) > _MAX_IMAGES:
        found = [found[i] for i in np.linspace(0, len(found) - 1, _MAX_IMAGES).astype(int)]
    pixels, class_indices, names = [], [], []
    for path, class_index in found:
        try:
            pixels.append(read_image(path).pixels)
        except (ImageError, OSError):
            continue
        class_indices.append(class_index)
        names.append(path.relative_to(folder).as_posix())
    stacked = np.array(pixels, dtype=np.uint8).reshape(-1, IMAGE_SIZE_PX, IMAGE_SIZE_PX)
    return Split(stacked, np.array(class_indices, dtype=np.int64), tuple(names), emotions)
