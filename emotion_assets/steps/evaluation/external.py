"""Labelled images of another source: `external/<Emotion>/`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import numpy as np

from emotion_assets.core.classes import EMOTIONS, emotion_from_folder
from emotion_assets.core.errors import ImageError
from emotion_assets.core.files import files_below
from emotion_assets.core.images import IMAGE_SIZE_PX, read_image
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.splits.splits import Split

_MAX_IMAGES: Final = 3000
_FORMER_NAME: Final = "unlabelled"

_logger = logging.getLogger(__name__)


def external_folder(paths: DataPaths) -> Path:
    """Return `external/`, or `unlabelled/`, its former name, if only that exists."""
    former = paths.root / _FORMER_NAME
    if paths.external.exists() or not former.exists():
        return paths.external
    _logger.warning(
        "Reading %s, because %s does not exist. Rename it: the next version will ignore it.", former, paths.external
    )
    return former


def read_external(paths: DataPaths) -> Split:
    """Read up to 3,000 images of the subfolders that are named after emotions; there may be none.

    Unreadable files and folders are skipped.
    """
    folder = external_folder(paths)
    found: list[tuple[Path, int]] = []
    for subfolder in sorted(folder.glob("*")):
        emotion = emotion_from_folder(subfolder.name)
        if emotion and not subfolder.is_symlink():
            found += [(path, EMOTIONS.index(emotion)) for path in files_below(subfolder)]
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
    return Split(stacked, np.array(class_indices, dtype=np.int64), tuple(names))
