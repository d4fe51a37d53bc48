"""Labelled images of another source, or a data set's own test part: `external/`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import numpy as np

from emotion_assets.core.classes import read_classes
from emotion_assets.core.errors import ImageError
from emotion_assets.core.files import file_sha256
from emotion_assets.core.images import IMAGE_SIZE_PX, read_image
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.ingest.scan import FolderScan, SourceFile
from emotion_assets.steps.splits.splits import Split, was_trained_on

_MAX_IMAGES: Final = 3000


def read_external(paths: DataPaths, emotions: tuple[str, ...], bundle_dir: Path) -> Split:
    """Read up to 3,000 labelled images, those below folders that are named after classes; there may be none.

    Unreadable files and folders are skipped, classes that are none of `emotions`, and copies of images that the model
    in `bundle_dir` was trained on.
    """
    folder = paths.external
    scan = FolderScan(folder, read_classes(paths.classes))
    labelled = sorted((entry.path, entry.label) for entry in scan if isinstance(entry, SourceFile))
    found = [(folder / os.fsdecode(path), emotions.index(label)) for path, label in labelled if label in emotions]
    if len(found) > _MAX_IMAGES:
        found = [found[i] for i in np.linspace(0, len(found) - 1, _MAX_IMAGES).astype(int)]
    pixels, class_indices, names, hashes = [], [], [], []
    for path, class_index in found:
        try:
            image, content_hash = read_image(path), file_sha256(path)  # what is too large is not read
        except (ImageError, OSError):
            continue
        pixels.append(image.pixels)
        class_indices.append(class_index)
        names.append(path.relative_to(folder).as_posix())
        hashes.append(content_hash)
    is_new = ~was_trained_on(bundle_dir, hashes)
    stacked = np.array(pixels, dtype=np.uint8).reshape(-1, IMAGE_SIZE_PX, IMAGE_SIZE_PX)
    kept_names = tuple(np.array(names)[is_new].tolist())
    return Split(stacked[is_new], np.array(class_indices, dtype=np.int64)[is_new], kept_names, emotions)
