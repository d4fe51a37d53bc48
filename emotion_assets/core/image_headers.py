"""What an image's file costs before a single pixel is decoded: its head is walked here, before Pillow reads it.

Pillow takes heads apart in steps of Python and keeps what it finds; a few megabytes can hold it for half a minute.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from emotion_assets.core.errors import UnreadableImageError

# Pillow reads a head in steps of Python, and adds up the parts of EXIF one by one: 21 s for half a million of them.
# EXIF of 10 MiB has 160 parts.
_MAX_JPEG_SEGMENTS: Final = 2000
_MAX_JPEG_EXIF_PARTS: Final = 256
_MAX_JPEG_FILLING_BYTES: Final = 100_000

# Each strip and tile of a TIFF is a step of Python, and so is each component of a JPEG's frame.
_MAX_TIFF_LIST: Final = 20_000
_MAX_TIFF_ENTRIES: Final = 4_000
_FAST_TIFF_ENTRIES: Final = 256
_MAX_JPEG_FRAME_BYTES: Final = 8 + 4 * 3

# Chunks cost a step of Python each, and packed ones up to a megabyte, however small they are.
_MAX_PNG_CHUNKS: Final = 20_000
_MAX_PNG_COMPRESSED: Final = 16
_FAST_PNG_COMPRESSED: Final = 2
_PNG_COMPRESSED: Final = (b"iCCP", b"zTXt", b"iTXt")

PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"

# Two bytes begin a segment, unless they are stuffing, a restart inside a scan's data, padding, or a mark of arithmetic
# coding that stands alone.
_JPEG_MARKER: Final = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
# Pillow, which reads the head, takes more of them for standing alone, and reads on behind an end without a scan.
_JPEG_HEAD_MARKER: Final = re.compile(rb"\xff[^\x00\x01\xc8\xd0-\xd9\xf0-\xfd\xff]")
_JPEG_FRAME: Final = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]")
_JPEG_START: Final = b"\xff\xd8"
_JPEG_SCAN: Final = b"\xff\xda"
_JPEG_END: Final = b"\xff\xd9"

# Of bits, offsets, samples, byte counts and what extra samples mean: what the decoder goes through one by one.
_TIFF_LISTS: Final = frozenset({258, 273, 279, 324, 325, 338, 339})


def check_header(content: bytes, signature: str) -> bool:
    """Tell whether Pillow reads the head of an image, of the format that its first bytes say, in about a millisecond.

    Raises:
        UnreadableImageError: it would take far too long.
    """
    if signature == "JPEG":
        _check_jpeg_header(content)
    if signature == "TIFF":
        return _longest_tiff_list(content) <= _FAST_TIFF_ENTRIES
    if signature == "PNG":
        return _count_compressed_chunks(content) <= _FAST_PNG_COMPRESSED
    return True


def _check_jpeg_header(content: bytes) -> None:
    """Reject what takes long to read before a single pixel is decoded."""
    num_segments = num_filling = num_frames = 0
    position = 2
    while (found := _JPEG_HEAD_MARKER.search(content, position)) and found[0] != _JPEG_SCAN:
        num_segments += 1
        num_filling += found.start() - position
        length = int.from_bytes(content[found.end() : found.end() + 2])
        if _JPEG_FRAME.fullmatch(found[0]):
            num_frames += 1 if length <= _MAX_JPEG_FRAME_BYTES else 2
        if num_segments > _MAX_JPEG_SEGMENTS or num_frames > 1:
            break
        position = found.end() + length
    num_filling += (found.start() if found else len(content)) - position
    num_exif_parts = content.count(b"Exif\0\0", 0, position)
    if (
        num_segments > _MAX_JPEG_SEGMENTS
        or num_frames > 1
        or num_filling > _MAX_JPEG_FILLING_BYTES
        or num_exif_parts > _MAX_JPEG_EXIF_PARTS
    ):
        raise UnreadableImageError(
            f"The JPEG image's head has {num_segments:,} segments or more, {num_exif_parts:,} of them EXIF, "
            f"{num_filling:,} bytes between them, or several frames, which takes too long to read. Save it again "
            "without metadata."
        )


def _longest_tiff_list(content: bytes) -> int:
    """Return the length of the longest list in a TIFF's first directory; Pillow makes an object of each entry."""
    order: Literal["little", "big"] = "little" if content[:1] == b"I" else "big"
    is_big = content[2:4] in (b"+\0", b"\0+")
    # Bytes of an address, of the number of entries, of an entry, and within that of its count.
    address, number, entry, count = (8, 8, 20, 8) if is_big else (4, 2, 12, 4)
    directory = int.from_bytes(content[address : 2 * address], order)
    num_entries = int.from_bytes(content[directory : directory + number], order)
    longest = 0
    for place in range(min(num_entries, _MAX_TIFF_ENTRIES + 1)):
        position = directory + number + place * entry
        if int.from_bytes(content[position : position + 2], order) in _TIFF_LISTS:
            longest = max(longest, int.from_bytes(content[position + 4 : position + 4 + count], order))
    if num_entries > _MAX_TIFF_ENTRIES or longest > _MAX_TIFF_LIST:
        raise UnreadableImageError(
            f"The TIFF image has {num_entries:,} entries, and lists of up to {longest:,} parts, which takes too long "
            "to read. Save it again."
        )
    return longest


def _count_compressed_chunks(content: bytes) -> int:
    """Return how many chunks of a PNG image are to be inflated beside its pixels; too many are rejected."""
    num_chunks = num_packed = 0
    position = len(PNG_MAGIC)
    while position + 8 <= len(content):
        num_chunks += 1
        kind = content[position + 4 : position + 8]
        if kind == b"IEND":
            break
        num_packed += kind in _PNG_COMPRESSED
        if num_chunks > _MAX_PNG_CHUNKS or num_packed > _MAX_PNG_COMPRESSED:
            raise UnreadableImageError(
                f"The PNG image has more than {_MAX_PNG_CHUNKS:,} chunks, or {_MAX_PNG_COMPRESSED} packed texts and "
                "color profiles, which takes too long to read. Save it again without metadata."
            )
        # Length, type and checksum are twelve bytes.
        position += 12 + int.from_bytes(content[position : position + 4])
    return num_packed


def count_jpeg_scans(content: bytes) -> int:
    """Count the scans of the image itself: not those of a thumbnail inside it, nor of what hangs behind it."""
    num_scans, position = content.count(_JPEG_SCAN), 2
    if num_scans <= 1:
        return num_scans  # these two bytes may stand elsewhere too, so only a larger number needs a closer look
    num_scans = 0
    # The decoder passes over an end that comes before any scan, too.
    while (found := _JPEG_MARKER.search(content, position)) and not (num_scans and found[0] == _JPEG_END):
        num_scans += found[0] == _JPEG_SCAN
        position = found.end()
        if found[0] not in (_JPEG_START, _JPEG_END):
            # A segment says how long it is; after a scan's header its data run to the next marker.
            position += int.from_bytes(content[position : position + 2])
    return num_scans
