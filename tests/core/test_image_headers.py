from __future__ import annotations

import struct
import zlib

import pytest

from emotion_assets.core.errors import UnreadableImageError
from emotion_assets.core.image_headers import check_header, count_jpeg_scans, find_jpeg_frame, max_png_pixels
from tests.malformed_images import add_jpeg_segments, encode, encode_png, encode_tiff, gradient, png_chunk

COMMENT = b"\xff\xfe\x00\x02"
SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00"


@pytest.mark.parametrize(
    "segment",
    [b"\xff\xe1\x00\x0eExif\x00\x00" + b"\0" * 6, COMMENT, b"\xff" * 50, b"\x01" * 50],
    ids=["exif", "comments", "fill", "junk"],
)
def test_check_header_rejects_jpegs_of_many_segments(segment: bytes) -> None:
    """Pillow parses them one by one, and concatenates EXIF: 21 s for ten megabytes."""
    assert check_header(add_jpeg_segments(segment), "JPEG")

    with pytest.raises(UnreadableImageError, match="takes too long to read"):
        check_header(add_jpeg_segments(segment * 3000), "JPEG")


@pytest.mark.parametrize("marker", [b"\xff\xd9", b"\xff\xd8", b"\xff\xf0", b"\xff\xc8"])
def test_check_header_reads_on_behind_markers_without_a_length(marker: bytes) -> None:
    """Pillow does, so such a marker must not hide what follows."""
    with pytest.raises(UnreadableImageError, match="takes too long to read"):
        check_header(add_jpeg_segments(marker + COMMENT * 3000), "JPEG")


@pytest.mark.parametrize("num_components", [1, 200])
def test_check_header_rejects_jpegs_of_several_frames(num_components: int) -> None:
    """Each may name thousands of components, which Pillow keeps."""
    size = struct.pack(">HBHHB", 8 + 3 * num_components, 8, 64, 64, num_components)

    with pytest.raises(UnreadableImageError, match="several frames"):
        check_header(add_jpeg_segments(b"\xff\xc0" + size + b"\x01\x11\x00" * num_components), "JPEG")


@pytest.mark.parametrize("tags", [{322: 64, 323: 1}, {278: 1}], ids=["tiles", "strips"])
def test_check_header_rejects_tiffs_of_many_parts(tags: dict[int, int]) -> None:
    """Pillow creates an object for each: gigabytes for ten megabytes."""
    assert check_header(encode_tiff(tags, bytes(64), num_strips=64), "TIFF")
    assert not check_header(encode_tiff(tags, bytes(64), num_strips=300), "TIFF")

    with pytest.raises(UnreadableImageError, match="takes too long to read"):
        check_header(encode_tiff(tags, bytes(64), num_strips=30_000), "TIFF")


@pytest.mark.parametrize("position", [33, -12], ids=["before the pixels", "behind the pixels"])
@pytest.mark.parametrize(
    ("kind", "start"), [(b"iCCP", b"x\0\0"), (b"zTXt", b"\0\0"), (b"iTXt", b"\0\1\0\0\0")], ids=["iCCP", "zTXt", "iTXt"]
)
def test_check_header_rejects_pngs_of_many_compressed_chunks(kind: bytes, start: bytes, position: int) -> None:
    """A kilobyte becomes a megabyte each time; a few, as programs write them, are read."""
    content = encode(gradient(), "PNG")
    chunk = png_chunk(kind, start + zlib.compress(bytes(1_000_000)))

    def add_chunks(number: int) -> bytes:
        return content[:position] + chunk * number + content[position:]

    assert check_header(add_chunks(1), "PNG")
    assert not check_header(add_chunks(3), "PNG")
    with pytest.raises(UnreadableImageError, match="takes too long to read"):
        check_header(add_chunks(17), "PNG")


def test_count_jpeg_scans_counts_those_of_the_image() -> None:
    """Early ends and markers without a length hide no scan; those behind the image's end do not count."""
    content = encode(gradient(), "JPEG")

    assert count_jpeg_scans(content) == 1
    assert count_jpeg_scans(content + SCAN * 5) == 1
    assert count_jpeg_scans(content[:-2] + SCAN * 5 + content[-2:]) == 6
    assert count_jpeg_scans(b"\xff\xd8\xff\xd9" + content[:-2] + SCAN * 5 + content[-2:]) == 6
    assert count_jpeg_scans(content[:-2] + (b"\xff\x01" + SCAN) * 5 + content[-2:]) == 6


def test_find_jpeg_frame_reads_size_and_kind() -> None:
    """Those of the image, not of a thumbnail before it."""
    thumbnail = encode(gradient(32, 32), "JPEG", progressive=True)

    assert find_jpeg_frame(encode(gradient(), "JPEG", comment=thumbnail)) == (120 * 90, False)
    assert find_jpeg_frame(encode(gradient(), "JPEG", progressive=True)) == (120 * 90, True)
    assert find_jpeg_frame(b"\xff\xd8\xff\xd9") == (0, False)


def test_max_png_pixels_takes_the_largest_header() -> None:
    """A second one replaces the first in Pillow."""
    assert max_png_pixels(encode(gradient(), "PNG")) == 120 * 90
    assert max_png_pixels(encode_png(9, 8, b"")[:33] + encode_png(700, 900, b"")[8:]) == 700 * 900
    assert max_png_pixels(b"\x89PNG\r\n\x1a\n") == 0
