"""The 64×64 pixels of every accepted image in one flat file.

A database would write each image twice, into its journal and into its pages. Images are appended before the store
commits the rows that refer to them, so the next write overwrites what a killed ingest leaves behind. The store has a
checksum of each image, so a torn or altered file is noticed and never trained on.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.images import IMAGE_SIZE_PX, Pixels

_IMAGE_BYTES: Final = IMAGE_SIZE_PX**2


class PixelFile:
    """Images by their position in the file at `path`; they are never moved or removed."""

    def __init__(self, path: Path) -> None:
        """Use the file at `path`; the first `write` creates it."""
        self._path = path

    def write(self, position: int, images: list[bytes]) -> None:
        """Write images, each uint8 (row, column) as bytes, from `position` on."""
        self._path.touch()
        with self._path.open("r+b") as file:
            file.seek(position * _IMAGE_BYTES)
            file.write(b"".join(images))

    def sync(self) -> None:
        """Wait until everything written has reached the disk."""
        if self._path.exists():
            with self._path.open("r+b") as file:
                os.fdatasync(file.fileno())

    def read(self, positions: npt.NDArray[np.int64], checksums: list[int]) -> Pixels:
        """Return images, uint8 (image, row, column), in the order of `positions`; `checksums` are their CRC-32.

        Raises:
            UnusableDataError: the file is missing, too short, or not what was written.
        """
        images = np.empty((len(positions), IMAGE_SIZE_PX, IMAGE_SIZE_PX), dtype=np.uint8)
        if not len(positions):
            return images
        try:
            shape = (self._path.stat().st_size // _IMAGE_BYTES, IMAGE_SIZE_PX, IMAGE_SIZE_PX)
            stored = np.memmap(self._path, dtype=np.uint8, mode="r", shape=shape)
            np.take(stored, positions, axis=0, out=images)
            is_intact = all(zlib.crc32(image.data) == wanted for image, wanted in zip(images, checksums, strict=True))
        except (OSError, ValueError, IndexError):
            is_intact = False
        if not is_intact:
            raise UnusableDataError(
                f"{self._path} is damaged or does not belong to the store beside it. Move the folder "
                f"{self._path.parent} away and materialize raw_images: it is rebuilt from raw/."
            )
        return images
