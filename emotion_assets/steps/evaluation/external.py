"""Labelled images of another source: `external/<Emotion>/`, if somebody sorted them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from emotion_assets.core.classes import EMOTIONS, emotion_from_folder
from emotion_assets.core.errors import ImageError
from emotion_assets.core.files import files_below
from emotion_assets.core.images import IMAGE_SIZE_PX, read_image
from emotion_assets.steps.splits.splits import Split

_MAX_IMAGES: Final = 3000


def read_external(folder: Path) -> Split:
    """Return up to 3,000 images of `folder`'s subfolders that are named after emotions; none is an answer too.

    Files that are no readable images, and folders that cannot be read, are skipped.
    """
    found: list[tuple[Path, int]] = []
    for place in sorted(folder.glob("*")):
        emotion = emotion_from_folder(place.name)
        if emotion and not place.is_symlink():
            found += [(path, EMOTIONS.index(emotion)) for path in files_below(place)]
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
    shape = (-1, IMAGE_SIZE_PX, IMAGE_SIZE_PX)
    stacked = np.array(pixels, dtype=np.uint8).reshape(shape)
    return Split(stacked, np.array(class_indices, dtype=np.int64), tuple(names))
