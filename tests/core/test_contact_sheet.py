from __future__ import annotations

import io

import numpy as np
from PIL import Image

from emotion_assets.core.contact_sheet import contact_sheet


def test_contact_sheet_lays_images_out_in_rows() -> None:
    """Fifteen images fill two rows of twelve."""
    pixels = np.full((15, 64, 64), 40, dtype=np.uint8)

    sheet = np.asarray(Image.open(io.BytesIO(contact_sheet(pixels))).convert("L"))

    assert sheet.shape == (2 * 66, 12 * 66)
    assert sheet[30, 30] < 60
    assert sheet[100, 12 * 66 - 20] > 240


def test_contact_sheet_without_images_is_blank() -> None:
    """No image gives an empty sheet, not an error."""
    sheet = np.asarray(Image.open(io.BytesIO(contact_sheet(np.empty((0, 64, 64), dtype=np.uint8)))))

    assert sheet.min() > 250
