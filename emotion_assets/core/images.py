"""Decode the bytes of an image to the pixels of the network.

Ingest, training, drift detection and the service all call `decode_image`, so they accept the same images and see the
same 64×64 gray values. The content determines the format, not a file name or a declared type.
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
import simplejpeg
from PIL import Image, UnidentifiedImageError

from emotion_assets.core import grayscale, image_headers
from emotion_assets.core.errors import (
    EmptyImageError,
    ImageError,
    ImageTooLargeError,
    UnreadableImageError,
    UnsupportedFormatError,
)
from emotion_assets.core.grayscale import reduce_to_gray
from emotion_assets.core.image_headers import PNG_MAGIC, check_header, count_jpeg_scans, find_jpeg_frame, max_png_pixels

# Pillow warns of malformed metadata, which says nothing about the pixels.
warnings.filterwarnings("ignore", module=r"PIL\.")

Pixels = npt.NDArray[np.uint8]
"""Gray values 0..255, axes (row, column) or (image, row, column)."""

IMAGE_SIZE_PX: Final = 64
MAX_IMAGE_BYTES: Final = 10 * 1024 * 1024
MAX_IMAGE_PIXELS: Final = 40_000_000
MAX_SIDE_PX: Final = 20_000
MIN_SIDE_PX: Final = 8

_SOURCES: Final = tuple(map(Path, (__file__, grayscale.__file__, image_headers.__file__)))
DECODER_VERSION: Final = hashlib.sha256(
    b"".join(path.read_bytes() for path in _SOURCES) + f"{PIL.__version__} {simplejpeg.__version__}".encode()
).hexdigest()[:12]
"""Changes with the decoder's sources and libraries: pixels that another version read may differ from the service's."""

# Pillow's WebP decoder keeps several copies of the canvas in memory: 15 bytes per pixel, measured.
MAX_WEBP_PIXELS: Final = 12_500_000

# Each progressive scan covers the whole image: an 88 kB file of 6 megapixels and 3,000 scans takes minutes.
# Cameras and encoders write about ten scans.
MAX_JPEG_SCANS: Final = 100
MAX_JPEG_SCAN_PIXELS: Final = 500_000_000
MAX_JPEG_COEFFICIENT_BYTES: Final = 150_000_000

# Every other Pillow decoder stays off: EPS starts an interpreter, many are rarely fuzzed.
# Phone images in MPO containers open as JPEG.
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

# Larger images are decoded in a thread.
_FAST_BYTES: Final = 128 * 1024
_FAST_JPEG_PIXELS: Final = 250_000
_FAST_PIXELS: Final = 64_000  # other decoders take up to 80 ns a pixel

_TIFF_STRIPS: Final = 273
_TIFF_SAMPLES: Final = 277
_TIFF_TILE_SIDES: Final = (322, 323)
_TIFF_TILES: Final = 324
_JPEG_DAMAGE: Final = ("Corrupt JPEG data", "Premature end")
_JPEG_HARMLESS: Final = "extraneous bytes before marker 0xd9"
_NEARLY_BLACK: Final = 16
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
class DecodedImage:
    """An accepted image: its pixels for the network, and its header."""

    pixels: Pixels
    """uint8 (64, 64), axes (row, column), 0 black to 255 white."""
    width_px: int
    height_px: int
    mode: str
    format: str
    warning: str | None = None
    """What is odd about it: the decoder made up for damaged data, or the image is nearly black."""


@dataclass(frozen=True, slots=True)
class GrayImage:
    """An accepted image, gray, upright and reduced."""

    image: Image.Image
    """Mode L."""
    width_px: int
    """Width in the file, before rotation and downscaling; the same holds for the height."""
    height_px: int
    mode: str
    format: str
    warning: str | None = None
    """A defect for which the image is not rejected."""


def decode_image(content: bytes) -> DecodedImage:
    """Turn the bytes of an image into 64×64 gray pixels.

    The first frame counts; EXIF orientation is applied, transparency is composited onto white, colors become
    ITU-R 601 luma, deep values are scaled to 8 bits, and the image is stretched to a square. The white of a deep image
    is the lowest of 1 (in floating point), 255, 4095 and 65535 that no value exceeds, because cameras write 12 bits and
    programs 8 into files of 16.

    Raises:
        ImageError: as `decode_gray`.
    """
    gray = decode_gray(content, IMAGE_SIZE_PX)
    pixels = face_pixels(gray.image)
    warning = gray.warning
    if (brightest := int(pixels.max())) < _NEARLY_BLACK:
        dark = f"The image is nearly black: {brightest} of 255 at most. Was a deep image written with too few bits?"
        warning = f"{warning} {dark}" if warning else dark
    return DecodedImage(pixels, gray.width_px, gray.height_px, gray.mode, gray.format, warning)


def needs_worker_thread(content: bytes) -> bool:
    """Tell from the header whether decoding may take more than a few milliseconds, which would block an event loop.

    Never raises: what `decode_image` rejects right away needs no thread.
    """
    if len(content) > _FAST_BYTES:
        return True
    try:
        image_format = _detect_format(content)
        if image_format == "JPEG":
            num_pixels, is_progressive = find_jpeg_frame(content)
            return is_progressive or num_pixels > _FAST_JPEG_PIXELS
        if not check_header(content, image_format):
            return True
        if image_format == "PNG":
            return max_png_pixels(content) > _FAST_PIXELS
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            return image.width * image.height > _FAST_PIXELS
    except Exception:  # noqa: BLE001 -- `decode_image` reports it
        return False


def face_pixels(gray: Image.Image) -> Pixels:
    """Stretch an image in mode L to the network's uint8 (64, 64), axes (row, column).

    The result is the same for an image and for a lossless file of it.
    """
    square = reduce_to_gray(gray, IMAGE_SIZE_PX).resize((IMAGE_SIZE_PX, IMAGE_SIZE_PX), Image.Resampling.BILINEAR)
    return np.frombuffer(bytearray(square.tobytes()), dtype=np.uint8).reshape(IMAGE_SIZE_PX, IMAGE_SIZE_PX)


def decode_gray(content: bytes, working_side_px: int) -> GrayImage:
    """Turn the bytes of an image into a gray, upright one as `decode_image` does, but keep its proportions.

    Args:
        content: the bytes of a file.
        working_side_px: larger images are reduced by a whole factor to a shorter side of at least this many pixels.

    Raises:
        EmptyImageError: there are no bytes.
        ImageTooLargeError: over 10 MiB, over 40 megapixels (12.5 for WebP) or 20,000 pixels per side.
        UnsupportedFormatError: not JPEG, PNG, WebP, GIF, BMP or TIFF.
        UnreadableImageError: damaged, truncated, under 8 pixels per side, or built to be slow to decode.
        MemoryError: there is not enough memory now.
    """
    if not content:
        raise EmptyImageError("The image is empty (0 bytes). Send the bytes of an image.")
    if len(content) > MAX_IMAGE_BYTES:
        raise ImageTooLargeError(
            f"The image has {len(content):,} bytes; at most {MAX_IMAGE_BYTES:,} are read. "
            "Send a smaller or more compressed copy."
        )
    image_format = _detect_format(content)
    try:
        return _decode(content, image_format, working_side_px)
    except (ImageError, MemoryError):  # the latter says nothing about the image
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(
            f"The {image_format} image declares far more than {MAX_IMAGE_PIXELS:,} pixels. Send a smaller copy."
        ) from error
    except UnidentifiedImageError as error:
        # Pillow's own message names an object in memory.
        raise UnreadableImageError(
            f"The {image_format} image is damaged or incomplete. Send an intact copy."
        ) from error
    except Exception as error:
        # Pillow's decoders raise nearly anything on damaged input (OSError, SyntaxError, ValueError,
        # IndexError, KeyError, struct.error, …); all of it means the same to the sender.
        raise UnreadableImageError(
            f"The {image_format} image is damaged or incomplete ({error}). Send an intact copy."
        ) from error


def read_image(path: Path) -> DecodedImage:
    """Decode a file, which is not read if it is too large.

    Raises:
        OSError: it cannot be read.
        ImageError: as `decode_image`.
    """
    size_bytes = path.stat().st_size
    if size_bytes > MAX_IMAGE_BYTES:
        raise ImageTooLargeError(f"{path} has {size_bytes:,} bytes; at most {MAX_IMAGE_BYTES:,} are read.")
    return decode_image(path.read_bytes())


def _detect_format(content: bytes) -> str:
    for magic, name in _SIGNATURES:
        if content.startswith(magic):
            return name
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    raise UnsupportedFormatError(
        "The content is not a JPEG, PNG, WebP, GIF, BMP or TIFF image (HEIC, AVIF, PDF and others "
        "are not read). Save the image as JPEG or PNG."
    )


def _decode(content: bytes, image_format: str, working_side_px: int) -> GrayImage:
    check_header(content, image_format)
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        width_px, height_px, mode = image.width, image.height, image.mode
        _check_size(image, image_format)
        if image_format == "TIFF":
            _check_tiff(image)
        if image_format == "PNG":
            _check_png(content)
        if image_format == "JPEG":
            _check_jpeg_scans(content, image)
            # Decodes at a half, a quarter or an eighth of the size straight from the cosine coefficients.
            image.draft("L", (working_side_px, working_side_px))
        loaded, warning = _load_jpeg(content, image) if image_format == "JPEG" else (image, None)
        loaded.load()
        # Loading a TIFF applies its orientation, and removes the tag.
        orientation = _exif_orientation(image)
        gray = reduce_to_gray(loaded, working_side_px)
    if orientation in _TRANSPOSITIONS:
        gray = gray.transpose(_TRANSPOSITIONS[orientation])
    return GrayImage(gray, width_px, height_px, mode, image_format, warning)


def _check_size(image: Image.Image, image_format: str) -> None:
    width_px, height_px = image.size
    limit = MAX_WEBP_PIXELS if image_format == "WEBP" else MAX_IMAGE_PIXELS
    if width_px * height_px > limit or max(width_px, height_px) > MAX_SIDE_PX:
        raise ImageTooLargeError(
            f"The {image_format} image has {width_px:,} × {height_px:,} pixels; the limits are {limit:,} in total "
            f"and {MAX_SIDE_PX:,} per side. Send a smaller copy."
        )
    if min(width_px, height_px) < MIN_SIDE_PX:
        raise UnreadableImageError(
            f"The image has {width_px} × {height_px} pixels; a face needs at least {MIN_SIDE_PX} per side. "
            "Send a larger one."
        )


def _check_png(content: bytes) -> None:
    # Pillow's normal loading ignores the checksums of the pixel data; `verify` reads them all.
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        image.verify()


def _check_tiff(image: Image.Image) -> None:
    """Reject tiles and strips that cost far more than the image's size suggests.

    The decoder allocates a whole tile, however little of it is image.
    """
    tags, num_pixels = getattr(image, "tag_v2", {}), image.width * image.height
    across, down = (max(1, int(tags.get(tag, 1))) for tag in _TIFF_TILE_SIDES)
    if across * down > max(2 * num_pixels, _USUAL_TILE_PIXELS):
        raise UnreadableImageError(
            f"The TIFF image of {num_pixels:,} pixels has tiles of {across:,} × {down:,}. Save it again without tiles."
        )
    samples = int(tags.get(_TIFF_SAMPLES, 1))
    num_tiles = len(tags.get(_TIFF_TILES, ()))
    if num_tiles > math.ceil(image.width / across) * math.ceil(image.height / down) * samples:
        raise UnreadableImageError(
            f"The TIFF image of {image.width:,} × {image.height:,} pixels has {num_tiles:,} tiles. Save it again."
        )
    num_strips = len(tags.get(_TIFF_STRIPS, ()))
    if num_strips > image.height * samples:
        raise UnreadableImageError(f"The TIFF image of {image.height:,} rows has {num_strips:,} strips. Save it again.")


def _check_jpeg_scans(content: bytes, image: Image.Image) -> None:
    num_pixels = image.width * image.height
    num_scans = count_jpeg_scans(content)
    if num_scans > MAX_JPEG_SCANS or num_scans * num_pixels > MAX_JPEG_SCAN_PIXELS:
        raise UnreadableImageError(
            f"The JPEG image has {num_scans} scans over {num_pixels:,} pixels, which takes too long to decode. "
            "Save it again as a baseline JPEG."
        )
    if num_scans > 1:
        # Between scans the decoder holds all coefficients of every channel, 2 bytes each.
        samplings = [(across, down) for _, across, down, _ in getattr(image, "layer", ())]
        largest = max((across * down for across, down in samplings), default=1)
        num_bytes = 2 * num_pixels * sum(across * down for across, down in samplings) // largest
        if num_bytes > MAX_JPEG_COEFFICIENT_BYTES:
            raise ImageTooLargeError(
                f"The progressive JPEG image needs {num_bytes:,} bytes to decode; at most "
                f"{MAX_JPEG_COEFFICIENT_BYTES:,} are allowed. Send a smaller copy, or save it as a baseline JPEG."
            )


def _load_jpeg(content: bytes, image: Image.Image) -> tuple[Image.Image, str | None]:
    """Decode a JPEG image to gray at the size that `image` was drafted to; return a warning if it is damaged.

    Both libraries are the same decoder, but simplejpeg is twice as fast and reports what it had to make up for.
    Pillow decodes damaged and non-gray images.
    """
    if image.mode != "L":
        return image, None
    try:
        gray = simplejpeg.decode_jpeg(
            content, colorspace="GRAY", strict=True, min_height=image.height, min_width=image.width
        )
    except ValueError as error:
        # What else it refuses is unusual, but whole: odd samplings, newer versions of the container.
        is_damaged = str(error).startswith(_JPEG_DAMAGE) and not str(error).endswith(_JPEG_HARMLESS)
        return image, f"The JPEG data are damaged, and a part was made up: {error}." if is_damaged else None
    if gray.shape[:2] != (image.height, image.width):
        return image, None
    return Image.fromarray(gray[:, :, 0]), None


def _exif_orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # noqa: BLE001 -- a damaged EXIF block says nothing about the pixels
        return 1
