from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from emotion_assets.core.images import decode_image
from tests.malformed_images import encode, encode_tiff, gradient


def difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(int) - second.astype(int)).mean())


REFERENCE = decode_image(encode(gradient(), "PNG")).pixels


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_decode_scales_sixteen_bits(name: str) -> None:
    """16-bit gray is scaled to 8 bits, not clipped to white."""
    deep = Image.fromarray(np.asarray(gradient()).astype(np.uint16) * 257)

    image = decode_image(encode(deep, name))

    assert difference(image.pixels, REFERENCE) < 1.5


def test_decode_reads_big_endian_tiffs() -> None:
    """As ImageJ writes them."""
    values = np.asarray(gradient()).astype(">u2") * 257
    buffer = io.BytesIO()
    Image.frombytes("I;16B", gradient().size, values.astype(">u2").tobytes()).save(buffer, "TIFF")

    assert difference(decode_image(buffer.getvalue()).pixels, REFERENCE) < 1.5


@pytest.mark.parametrize(("bits", "white_is"), [(16, 1), (16, 0), (12, 1)])
def test_decode_reads_deep_tiffs_with_both_polarities(bits: int, white_is: int) -> None:
    """One tag has the polarity, another the number of bits."""
    gray = np.tile(np.arange(64) / 63, (64, 1))
    values = np.rint((gray if white_is else 1 - gray) * (2**bits - 1)).astype(np.uint16).ravel()
    if bits == 16:
        data = values.astype("<u2").tobytes()
    else:
        first, second = values[::2], values[1::2]
        packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1)
        data = packed.astype(np.uint8).tobytes()

    pixels = decode_image(encode_tiff({258: bits, 262: white_is}, data)).pixels

    assert difference(pixels, np.rint(255 * gray).astype(np.uint8)) < 1


def test_decode_reads_other_modes() -> None:
    """Palette, 1-bit, CMYK, float and 32-bit images become gray of the right brightness."""
    gray = gradient()
    cases = [
        (gray.convert("P"), "PNG", 3),
        (gray.convert("CMYK"), "JPEG", 4),
        (gray.convert("CMYK"), "TIFF", 3),
        (gray.convert("F"), "TIFF", 1.5),
        (gray.convert("I"), "TIFF", 1.5),
        (Image.fromarray(np.asarray(gray, dtype=np.float32) / 255), "TIFF", 1.5),
        (gray.convert("1"), "PNG", 40),
    ]
    for image, name, tolerance in cases:
        pixels = decode_image(encode(image, name)).pixels
        assert difference(pixels, REFERENCE) < tolerance, (image.mode, name)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_decode_lays_transparency_on_white(mode: str) -> None:
    """A transparent image is white, whatever color hides below."""
    image = Image.new(mode, (40, 40))

    assert decode_image(encode(image, "PNG")).pixels.min() == 255


def test_decode_of_a_large_image_equals_the_whole_conversion() -> None:
    """Working in strips gives what converting the whole image gives."""
    large = gradient(3000, 2000).convert("RGBA")

    assert difference(decode_image(encode(large, "PNG")).pixels, REFERENCE) < 1.5
