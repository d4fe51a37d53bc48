"""Convert images of every mode to 8-bit gray values."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image, ImageChops

from emotion_assets.core.errors import UnreadableImageError

_STRIP_PIXELS: Final = 1_000_000
_WHITES: Final = (1, 255, 4095, 65535)
"""White of floats, and of 8, 12 and 16 bits; the smallest that no value exceeds is taken."""
_TIFF_BITS: Final = 258
_TIFF_PHOTOMETRIC: Final = 262
_WHITE_IS_ZERO: Final = 0


def reduce_to_gray(image: Image.Image, working_side_px: int) -> Image.Image:
    """Convert an image to mode L and reduce it by a whole factor, strip by strip to bound the memory.

    Transparent pixels become white.

    Args:
        image: of any mode, from a file or not.
        working_side_px: the shorter side keeps at least this many pixels, if it has them.

    Raises:
        UnreadableImageError: its values are negative, infinite or above 16 bits.
    """
    width_px, height_px = image.size
    factor = max(1, min(width_px, height_px) // working_side_px)
    if image.mode == "L" and "transparency" not in image.info:
        return image.reduce(factor) if factor > 1 else image
    # Pillow inverts 8-bit ones itself.
    is_negative = _is_deep(image) and getattr(image, "tag_v2", {}).get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO
    scale = _brightness_scale(image, is_negative=is_negative)
    strip_rows = factor * max(1, _STRIP_PIXELS // (width_px * factor))
    gray = Image.new("L", (-(-width_px // factor), -(-height_px // factor)))
    for top in range(0, height_px, strip_rows):
        strip = image.crop((0, top, width_px, min(top + strip_rows, height_px)))
        strip.info = image.info
        flat = _to_gray(strip, scale)
        if is_negative:
            flat = ImageChops.invert(flat)
        gray.paste(flat.reduce(factor) if factor > 1 else flat, (0, top // factor))
    return gray


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith(("I", "F"))


def _brightness_scale(image: Image.Image, *, is_negative: bool) -> float:
    """Return the factor that maps white of a deep mode to 255; 1 for 8-bit modes."""
    if not _is_deep(image):
        return 1.0
    if is_negative:
        # White is 0, so the largest value says nothing about it.
        num_bits = int(getattr(image, "tag_v2", {}).get(_TIFF_BITS, (16,))[0])
        return 255 / ((1 << min(num_bits, 16)) - 1)
    # Pillow finds no extremes of big-endian values.
    found = image.convert("I").getextrema() if image.mode == "I;16B" else image.getextrema()
    low, high = (float(value) for value in found)  # type: ignore[arg-type]
    whites = _WHITES if image.mode == "F" else _WHITES[1:]
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0 or high > whites[-1]:
        raise UnreadableImageError(
            f"The image's values run from {low} to {high}; gray values of 0 to {whites[-1]} are read. "
            "Save it with 8 or 16 bits per channel."
        )
    return 255 / next(white for white in whites if high <= white)


def _to_gray(strip: Image.Image, scale: float) -> Image.Image:
    if _is_deep(strip):
        values = np.asarray(strip, dtype=np.float32) * scale
        return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
    if strip.has_transparency_data:
        colored = strip.convert("RGBA")
        white = Image.new("RGBA", colored.size, "white")
        return Image.alpha_composite(white, colored).convert("L")
    if strip.mode in ("L", "RGB"):
        return strip.convert("L")
    return strip.convert("RGB").convert("L")
