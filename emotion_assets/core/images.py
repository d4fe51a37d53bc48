"""The one way from the bytes of a picture to the pixels of the network.

Ingest, training, drift detection and the service all call `decode_picture`: what one of them
accepts, the others accept, and they see the same 64×64 grey values. Nothing here trusts a file
name or a declared type; the content decides.
"""

from __future__ import annotations

import hashlib
import io
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image, ImageChops

from emotion_assets.core import picture_heads
from emotion_assets.core.errors import (
    EmptyPictureError,
    PictureError,
    PictureTooLargeError,
    UnreadablePictureError,
    UnsupportedFormatError,
)
from emotion_assets.core.picture_heads import PNG_MAGIC, count_jpeg_scans, has_quick_head

# Pillow warns of odd metadata, which says nothing about the pixels; what matters is checked here.
warnings.filterwarnings("ignore", module=r"PIL\.")

Pixels = npt.NDArray[np.uint8]
"""Grey values 0..255, axes (row, column) or (picture, row, column)."""

IMAGE_SIZE_PX: Final = 64
MAX_PICTURE_BYTES: Final = 10 * 1024 * 1024
MAX_PICTURE_PIXELS: Final = 40_000_000
MAX_SIDE_PX: Final = 20_000
MIN_SIDE_PX: Final = 8

_SOURCES: Final = (Path(__file__), Path(picture_heads.__file__))
DECODER_VERSION: Final = hashlib.sha256(
    b"".join(path.read_bytes() for path in _SOURCES) + PIL.__version__.encode()
).hexdigest()[:12]
"""Changes whenever the decoder's sources or Pillow do: what another version read may differ from the service's."""

# Pillow's WebP decoder holds the canvas several times over: 15 bytes a pixel were measured.
MAX_WEBP_PIXELS: Final = 12_000_000

# Each progressive scan walks over the whole picture: 6 megapixels × 3,000 scans take minutes in 88 kB.
# Cameras and encoders write about ten scans.
MAX_JPEG_SCANS: Final = 100
MAX_JPEG_SCAN_PIXELS: Final = 500_000_000
MAX_JPEG_COEFFICIENT_BYTES: Final = 150_000_000

# Every other Pillow decoder stays off: EPS starts an interpreter, many are rarely fuzzed.
# Phone pictures in MPO containers open as JPEG.
_FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_SIGNATURES: Final = (
    (b"\xff\xd8\xff", "JPEG"),
    (PNG_MAGIC, "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
)

# Pictures are first shrunk by a whole factor to no less than the size that is worked on: by the JPEG decoder itself,
# or strip by strip, so that one strip at a time is in memory.
_STRIP_PIXELS: Final = 1_000_000
_QUICK_BYTES: Final = 128 * 1024
_QUICK_PIXELS: Final = 250_000

_TIFF_BITS: Final = 258
_TIFF_PHOTOMETRIC: Final = 262
_TIFF_STRIPS: Final = 273
_TIFF_SAMPLES: Final = 277
_TIFF_TILE_SIDES: Final = (322, 323)
_TIFF_TILES: Final = 324
_WHITE_IS_ZERO: Final = 0
_USUAL_TILE_PIXELS: Final = 1024 * 1024

_ORIENTATION_TAG: Final = 0x0112
_TRANSPOSITIONS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class DecodedPicture:
    """A picture that was accepted: its pixels for the network, and what its header said."""

    pixels: Pixels
    """uint8 (64, 64), axes (row, column), 0 black to 255 white."""
    width_px: int
    height_px: int
    mode: str
    format: str


@dataclass(frozen=True, slots=True)
class GreyPicture:
    """A picture that was accepted, grey and upright, no larger than needed."""

    image: Image.Image
    """Mode L."""
    width_px: int
    """Of the file, before it was turned upright and reduced; so is the height."""
    height_px: int
    mode: str
    format: str


class SlowPictureError(Exception):
    """A picture takes longer to decode than somebody in a hurry has."""


def decode_picture(content: bytes, *, is_hurried: bool = False) -> DecodedPicture:
    """Turn the bytes of a picture into 64×64 grey pixels.

    The first frame counts; EXIF orientation is applied, transparency is laid on white, colours become
    ITU-R 601 luma, 16-bit values are scaled, and the picture is stretched to a square.

    Args:
        content: the bytes of a file.
        is_hurried: whether to decode only what takes a millisecond or so, as most faces do that people send.

    Raises:
        PictureError: as `decode_grey`.
        SlowPictureError: it takes longer, and `is_hurried`.
    """
    grey = decode_grey(content, IMAGE_SIZE_PX, is_hurried=is_hurried)
    return DecodedPicture(face_pixels(grey.image), grey.width_px, grey.height_px, grey.mode, grey.format)


def face_pixels(grey: Image.Image) -> Pixels:
    """Stretch a picture in mode L to the network's uint8 (64, 64), axes (row, column).

    The result is the same for a picture and for a file without losses that it was written to.
    """
    square = _shrunk_grey(grey, IMAGE_SIZE_PX).resize((IMAGE_SIZE_PX, IMAGE_SIZE_PX), Image.Resampling.BILINEAR)
    return np.frombuffer(bytearray(square.tobytes()), dtype=np.uint8).reshape(IMAGE_SIZE_PX, IMAGE_SIZE_PX)


def decode_grey(content: bytes, working_side_px: int, *, is_hurried: bool = False) -> GreyPicture:
    """Turn the bytes of a picture into a grey one, upright, as `decode_picture` describes it, but not square.

    Args:
        content: the bytes of a file.
        working_side_px: larger pictures are reduced by a whole factor, while their shorter side keeps so many pixels.
        is_hurried: as for `decode_picture`.

    Raises:
        EmptyPictureError: there are no bytes.
        PictureTooLargeError: over 10 MiB, over 40 megapixels (12 for WebP) or 20,000 pixels a side.
        UnsupportedFormatError: not JPEG, PNG, WebP, GIF, BMP or TIFF.
        UnreadablePictureError: damaged, truncated, under 8 pixels a side, or slow to decode on purpose.
        SlowPictureError: it takes longer than a millisecond or so, and `is_hurried`.
        MemoryError: there is no memory for it now.
    """
    if not content:
        raise EmptyPictureError("The picture is empty (0 bytes). Send the bytes of a photograph.")
    if len(content) > MAX_PICTURE_BYTES:
        raise PictureTooLargeError(
            f"The picture has {len(content):,} bytes; at most {MAX_PICTURE_BYTES:,} are read. "
            "Send a smaller or more compressed copy."
        )
    signature = _format_by_content(content)
    try:
        return _decode(content, signature, working_side_px, is_hurried=is_hurried)
    except (PictureError, SlowPictureError):
        raise
    except Image.DecompressionBombError as error:
        raise PictureTooLargeError(
            f"The {signature} picture announces far more than {MAX_PICTURE_PIXELS:,} pixels. Send a smaller copy."
        ) from error
    except MemoryError:
        raise  # says nothing about the picture
    except Exception as error:
        # Pillow's decoders raise nearly anything on damaged input (OSError, SyntaxError, ValueError,
        # IndexError, KeyError, struct.error, …); all of it means the same to the sender.
        raise UnreadablePictureError(
            f"The {signature} picture is damaged or incomplete ({error}). Send an intact copy."
        ) from error


def read_picture(path: Path) -> DecodedPicture:
    """Return `decode_picture` of a file, which is not read if it is too large.

    Raises:
        OSError: it cannot be read.
        PictureError: as `decode_picture`.
    """
    size_bytes = path.stat().st_size
    if size_bytes > MAX_PICTURE_BYTES:
        raise PictureTooLargeError(f"{path} has {size_bytes:,} bytes; at most {MAX_PICTURE_BYTES:,} are read.")
    return decode_picture(path.read_bytes())


def _format_by_content(content: bytes) -> str:
    for magic, name in _SIGNATURES:
        if content.startswith(magic):
            return name
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    raise UnsupportedFormatError(
        "The content is not a JPEG, PNG, WebP, GIF, BMP or TIFF picture (HEIC, AVIF, PDF and others "
        "are not read). Save the photograph as JPEG or PNG."
    )


def _decode(content: bytes, signature: str, working_side_px: int, *, is_hurried: bool) -> GreyPicture:
    if is_hurried and len(content) > _QUICK_BYTES:
        raise SlowPictureError
    if not has_quick_head(content, signature) and is_hurried:
        raise SlowPictureError
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        width_px, height_px, mode = image.width, image.height, image.mode
        _check_header(image, signature)
        if signature == "TIFF":
            _check_tiff(image)
        if is_hurried and (width_px * height_px > _QUICK_PIXELS or image.info.get("progressive")):
            raise SlowPictureError
        if signature == "PNG":
            _check_png(content)
        if signature == "JPEG":
            _check_jpeg_scans(content, image)
            # Decodes at a half, a quarter or an eighth of the size straight from the cosine coefficients.
            image.draft("L", (working_side_px, working_side_px))
        image.load()
        orientation = _orientation_of(image)
        grey = _shrunk_grey(image, working_side_px)
    if orientation in _TRANSPOSITIONS:
        grey = grey.transpose(_TRANSPOSITIONS[orientation])
    return GreyPicture(grey, width_px, height_px, mode, signature)


def _check_header(image: Image.Image, signature: str) -> None:
    width_px, height_px = image.size
    limit = MAX_WEBP_PIXELS if signature == "WEBP" else MAX_PICTURE_PIXELS
    if width_px * height_px > limit or max(width_px, height_px) > MAX_SIDE_PX:
        raise PictureTooLargeError(
            f"The {signature} picture has {width_px:,} × {height_px:,} pixels; at most {limit:,} in all "
            f"and {MAX_SIDE_PX:,} a side are read. Send a smaller copy."
        )
    if min(width_px, height_px) < MIN_SIDE_PX:
        raise UnreadablePictureError(
            f"The picture has {width_px} × {height_px} pixels; a face needs at least {MIN_SIDE_PX} a side. "
            "Send a larger one."
        )


def _check_png(content: bytes) -> None:
    # Pillow's normal loading ignores the checksums of the pixel data; `verify` reads them all.
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        image.verify()


def _check_tiff(image: Image.Image) -> None:
    """Refuse what costs far more than the picture is large: the file itself says how large its parts are, and how many.

    The decoder takes memory for a whole tile, whatever part of it is picture.
    """
    tags, num_pixels = getattr(image, "tag_v2", {}), image.width * image.height
    across, down = (max(1, int(tags.get(tag, 1))) for tag in _TIFF_TILE_SIDES)
    if across * down > max(2 * num_pixels, _USUAL_TILE_PIXELS):
        raise UnreadablePictureError(
            f"The TIFF picture of {num_pixels:,} pixels lies in tiles of {across:,} × {down:,}. "
            "Save it anew without tiles."
        )
    samples = int(tags.get(_TIFF_SAMPLES, 1))
    num_tiles = len(tags.get(_TIFF_TILES, ()))
    if num_tiles > math.ceil(image.width / across) * math.ceil(image.height / down) * samples:
        raise UnreadablePictureError(
            f"The TIFF picture of {image.width:,} × {image.height:,} pixels lies in {num_tiles:,} tiles. Save it anew."
        )
    num_strips = len(tags.get(_TIFF_STRIPS, ()))
    if num_strips > image.height * samples:
        raise UnreadablePictureError(
            f"The TIFF picture of {image.height:,} rows lies in {num_strips:,} strips. Save it anew."
        )


def _check_jpeg_scans(content: bytes, image: Image.Image) -> None:
    num_pixels = image.width * image.height
    num_scans = count_jpeg_scans(content)
    if num_scans > MAX_JPEG_SCANS or num_scans * num_pixels > MAX_JPEG_SCAN_PIXELS:
        raise UnreadablePictureError(
            f"The JPEG picture has {num_scans} scans over {num_pixels:,} pixels, which takes too long to decode. "
            "Save it anew as a baseline JPEG."
        )
    if num_scans > 1:
        # Between scans the decoder keeps every coefficient, 2 bytes each, of every channel.
        samplings = [(across, down) for _, across, down, _ in getattr(image, "layer", ())]
        largest = max((across * down for across, down in samplings), default=1)
        num_bytes = 2 * num_pixels * sum(across * down for across, down in samplings) // largest
        if num_bytes > MAX_JPEG_COEFFICIENT_BYTES:
            raise PictureTooLargeError(
                f"The progressive JPEG picture needs {num_bytes:,} bytes to decode; at most "
                f"{MAX_JPEG_COEFFICIENT_BYTES:,} are spent. Send a smaller copy, or save it as a baseline JPEG."
            )


def _orientation_of(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # noqa: BLE001 -- a damaged EXIF block says nothing about the pixels
        return 1


def _shrunk_grey(image: Image.Image, working_side_px: int) -> Image.Image:
    """Return `image` in mode L, reduced by a whole factor, in strips that bound the memory."""
    width_px, height_px = image.size
    factor = max(1, min(width_px, height_px) // working_side_px)
    if image.mode == "L" and "transparency" not in image.info:
        return image.reduce(factor) if factor > 1 else image
    scale = _brightness_scale(image)
    # Pillow turns 8-bit ones the right way round itself.
    is_negative = scale != 1 and getattr(image, "tag_v2", {}).get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO
    strip_rows = factor * max(1, _STRIP_PIXELS // (width_px * factor))
    grey = Image.new("L", (-(-width_px // factor), -(-height_px // factor)))
    for top in range(0, height_px, strip_rows):
        strip = image.crop((0, top, width_px, min(top + strip_rows, height_px)))
        strip.info = image.info
        flat = _to_grey(strip, scale)
        if is_negative:
            flat = ImageChops.invert(flat)
        grey.paste(flat.reduce(factor) if factor > 1 else flat, (0, top // factor))
    return grey


def _brightness_scale(image: Image.Image) -> float:
    """Return what multiplies a value of a deep mode so that white becomes 255; 1 for 8-bit modes."""
    if not image.mode.startswith(("I", "F")):
        return 1.0
    if image.mode.startswith("I;16"):
        # TIFF has 12 bits as well.
        num_bits = int(getattr(image, "tag_v2", {}).get(_TIFF_BITS, (16,))[0])
        return 255 / ((1 << num_bits) - 1)
    low, high = (float(value) for value in image.getextrema())  # type: ignore[arg-type]
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0 or high > 65535:
        raise UnreadablePictureError(
            f"The picture's values run from {low} to {high}; grey values of 0 to 65535 are read. "
            "Save it with 8 or 16 bits a channel."
        )
    if image.mode == "F" and high <= 1:
        return 255.0
    return 1.0 if high <= 255 else 255 / 65535


def _to_grey(strip: Image.Image, scale: float) -> Image.Image:
    if strip.mode.startswith(("I", "F")):
        values = np.asarray(strip, dtype=np.float32) * scale
        return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
    if strip.has_transparency_data:
        coloured = strip.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(white, coloured).convert("L")
    if strip.mode in ("L", "RGB"):
        return strip.convert("L")
    return strip.convert("RGB").convert("L")
