"""Check an image's header before Pillow reads it.

Pillow parses headers in Python and keeps what it finds; a header of a few megabytes can take it half a minute.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from emotion_assets.core.errors import UnreadableImageError

# Pillow concatenates EXIF segments one by one: half a million take 21 s. EXIF of 10 MiB has 160 segments.
_MAX_JPEG_SEGMENTS: Final = 2000
_MAX_JPEG_EXIF_SEGMENTS: Final = 256
_MAX_JPEG_FILLING_BYTES: Final = 100_000

# Pillow creates an object for each strip and tile of a TIFF, and for each component of a JPEG's frame.
_MAX_TIFF_LIST: Final = 20_000
_MAX_TIFF_ENTRIES: Final = 4_000
_FAST_TIFF_ENTRIES: Final = 256
_MAX_JPEG_FRAME_BYTES: Final = 8 + 4 * 3

# Pillow loops over chunks in Python, and inflates a compressed one to up to a megabyte, however small it is.
_MAX_PNG_CHUNKS: Final = 20_000
_MAX_PNG_COMPRESSED: Final = 16
_FAST_PNG_COMPRESSED: Final = 2
_PNG_COMPRESSED: Final = (b"iCCP", b"zTXt", b"iTXt")

PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"

# These two bytes begin a segment, unless they are stuffing, padding, a restart marker, or a marker of arithmetic coding
# without a length.
_JPEG_MARKER: Final = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
# Pillow treats more markers as having no length, and reads on after an end without a scan.
_JPEG_HEAD_MARKER: Final = re.compile(rb"\xff[^\x00\x01\xc8\xd0-\xd9\xf0-\xfd\xff]")
_JPEG_FRAMES: Final = frozenset(bytes((0xFF, kind)) for kind in range(0xC0, 0xD0) if kind not in {0xC4, 0xC8, 0xCC})
_PROGRESSIVE: Final = (b"\xff\xc2", b"\xff\xc6", b"\xff\xca", b"\xff\xce")
_JPEG_START: Final = b"\xff\xd8"
_JPEG_SCAN: Final = b"\xff\xda"
_JPEG_END: Final = b"\xff\xd9"

# Bits per sample, offsets, byte counts and extra samples: lists that the decoder walks entry by entry.
_TIFF_LISTS: Final = frozenset({258, 273, 279, 324, 325, 338, 339})


def check_header(content: bytes, image_format: str) -> bool:
    """Return whether Pillow reads the header of an image of format `image_format` in about a millisecond.

    Raises:
        UnreadableImageError: it would take far too long.
    """
    if image_format == "JPEG":
        _check_jpeg_header(content)
    if image_format == "TIFF":
        return _longest_tiff_list(content) <= _FAST_TIFF_ENTRIES
    if image_format == "PNG":
        return _count_compressed_chunks(content) <= _FAST_PNG_COMPRESSED
    return True


def find_jpeg_frame(content: bytes) -> tuple[int, bool]:
    """Return the number of pixels of a JPEG image and whether it is progressive; (0, False) if no frame is found.

    Only the first frame counts, because `check_header` rejects images with several.
    """
    position = 2
    for _ in range(_MAX_JPEG_SEGMENTS):
        found = _JPEG_HEAD_MARKER.search(content, position)
        if not found or found[0] == _JPEG_SCAN:
            break
        start = found.end()
        if found[0] in _JPEG_FRAMES:
            # Length (2 bytes), bits (1), height, width.
            height, width = content[start + 3 : start + 5], content[start + 5 : start + 7]
            return int.from_bytes(height) * int.from_bytes(width), found[0] in _PROGRESSIVE
        position = start + int.from_bytes(content[start : start + 2])
    return 0, False


def max_png_pixels(content: bytes) -> int:
    """Return the largest number of pixels that a PNG image's header announces, before its pixel data."""
    num_pixels, position = 0, len(PNG_MAGIC)
    while (kind := content[position + 4 : position + 8]) not in {b"IDAT", b""}:
        if kind == b"IHDR":
            width, height = content[position + 8 : position + 12], content[position + 12 : position + 16]
            num_pixels = max(num_pixels, int.from_bytes(width) * int.from_bytes(height))
        position += 12 + int.from_bytes(content[position : position + 4])
    return num_pixels


def _check_jpeg_header(content: bytes) -> None:
    """Reject a header of very many segments."""
    num_segments = num_filling = num_frames = 0
    position = 2
    while (found := _JPEG_HEAD_MARKER.search(content, position)) and found[0] != _JPEG_SCAN:
        num_segments += 1
        num_filling += found.start() - position
        length = int.from_bytes(content[found.end() : found.end() + 2])
        if found[0] in _JPEG_FRAMES:
            num_frames += 1 if length <= _MAX_JPEG_FRAME_BYTES else 2
        if num_segments > _MAX_JPEG_SEGMENTS or num_frames > 1:
            break
        position = found.end() + length
    num_filling += (found.start() if found else len(content)) - position
    num_exif = content.count(b"Exif\0\0", 0, position)
    if (
        num_segments > _MAX_JPEG_SEGMENTS
        or num_frames > 1
        or num_filling > _MAX_JPEG_FILLING_BYTES
        or num_exif > _MAX_JPEG_EXIF_SEGMENTS
    ):
        raise UnreadableImageError(
            f"The JPEG image's header has at least {num_segments:,} segments, {num_exif:,} of them EXIF, "
            f"{num_filling:,} bytes between them, or several frames, which takes too long to read. Save it again "
            "without metadata."
        )


def _longest_tiff_list(content: bytes) -> int:
    """Return the length of the longest list in a TIFF's first directory; Pillow creates an object for each entry."""
    order: Literal["little", "big"] = "little" if content[:1] == b"I" else "big"
    is_big = content[2:4] in (b"+\0", b"\0+")
    # Sizes in bytes of an offset, the number of entries, an entry, and an entry's count.
    offset, number, entry, count = (8, 8, 20, 8) if is_big else (4, 2, 12, 4)
    directory = int.from_bytes(content[offset : 2 * offset], order)
    num_entries = int.from_bytes(content[directory : directory + number], order)
    longest = 0
    for index in range(min(num_entries, _MAX_TIFF_ENTRIES + 1)):
        position = directory + number + index * entry
        if int.from_bytes(content[position : position + 2], order) in _TIFF_LISTS:
            longest = max(longest, int.from_bytes(content[position + 4 : position + 4 + count], order))
    if num_entries > _MAX_TIFF_ENTRIES or longest > _MAX_TIFF_LIST:
        raise UnreadableImageError(
            f"The TIFF image has {num_entries:,} entries and lists of up to {longest:,} items, which takes too long "
            "to read. Save it again."
        )
    return longest


def _count_compressed_chunks(content: bytes) -> int:
    """Count the compressed chunks of a PNG image beside its pixels; too many are rejected."""
    num_chunks = num_compressed = 0
    position = len(PNG_MAGIC)
    while position + 8 <= len(content):
        num_chunks += 1
        kind = content[position + 4 : position + 8]
        if kind == b"IEND":
            break
        num_compressed += kind in _PNG_COMPRESSED
        if num_chunks > _MAX_PNG_CHUNKS or num_compressed > _MAX_PNG_COMPRESSED:
            raise UnreadableImageError(
                f"The PNG image has more than {_MAX_PNG_CHUNKS:,} chunks, or {_MAX_PNG_COMPRESSED} compressed texts "
                "and color profiles, which takes too long to read. Save it again without metadata."
            )
        # Length, type and checksum are twelve bytes.
        position += 12 + int.from_bytes(content[position : position + 4])
    return num_compressed


def count_jpeg_scans(content: bytes) -> int:
    """Count the scans of the image itself, without those of a thumbnail in its header or of data behind its end."""
    num_scans, position = content.count(_JPEG_SCAN), 2
    if num_scans <= 1:
        return num_scans  # these two bytes may occur elsewhere too, so only a larger number needs the walk below
    num_scans = 0
    # The decoder also ignores an end marker before the first scan.
    while (found := _JPEG_MARKER.search(content, position)) and not (num_scans and found[0] == _JPEG_END):
        num_scans += found[0] == _JPEG_SCAN
        position = found.end()
        if found[0] not in (_JPEG_START, _JPEG_END):
            # A segment has its length; after a scan's header the data continue up to the next marker.
            position += int.from_bytes(content[position : position + 2])
    return num_scans
