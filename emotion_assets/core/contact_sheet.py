"""Contact sheets: many small images on one."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from PIL import Image

from emotion_assets.core.images import Pixels

_GAP_PX: Final = 2
_NUM_COLUMNS: Final = 12
_WEBP_QUALITY: Final = 70


def contact_sheet(pixels: Pixels) -> bytes:
    """Lay out images, uint8 (image, row, column), in rows of twelve; no images give a blank sheet.

    The result is a WebP image, small enough for the metadata of a Dagster asset.
    """
    count, height, width = pixels.shape
    num_rows = max(1, -(-count // _NUM_COLUMNS))
    sheet = np.full((num_rows * (height + _GAP_PX), _NUM_COLUMNS * (width + _GAP_PX)), 255, dtype=np.uint8)
    for index, image in enumerate(pixels):
        row, column = divmod(index, _NUM_COLUMNS)
        top, left = row * (height + _GAP_PX), column * (width + _GAP_PX)
        sheet[top : top + height, left : left + width] = image
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "WEBP", quality=_WEBP_QUALITY)
    return buffer.getvalue()
