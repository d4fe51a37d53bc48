from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emotion_assets.core import images
from emotion_assets.core.errors import (
    EmptyImageError,
    ImageError,
    ImageTooLargeError,
    UnreadableImageError,
    UnsupportedFormatError,
)
from emotion_assets.core.images import NeedsWorkerThreadError, decode_image, read_image
from tests.malformed_images import FORMATS, encode, gradient, turned


def difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(int) - second.astype(int)).mean())


REFERENCE = decode_image(encode(gradient(), "PNG")).pixels


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_decode_gives_the_same_pixels_for_every_format(name: str, mode: str) -> None:
    """An image looks the same in every format, up to the losses of lossy ones."""
    image = decode_image(encode(gradient().convert(mode), name))

    assert image.pixels.shape == (64, 64)
    assert image.pixels.dtype == np.uint8
    assert (image.width_px, image.height_px, image.format) == (120, 90, name)
    assert difference(image.pixels, REFERENCE) < (3 if name in {"JPEG", "WEBP"} else 1.5)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_applies_exif_orientation(name: str, orientation: int) -> None:
    """A turned image with the matching EXIF tag decodes like the upright one."""
    image = decode_image(turned(name, orientation))

    assert difference(image.pixels, REFERENCE) < 3


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_decode_scales_sixteen_bits(name: str) -> None:
    """16-bit gray is scaled to 8 bits, not clipped to white."""
    deep = Image.fromarray(np.asarray(gradient()).astype(np.uint16) * 257)

    image = decode_image(encode(deep, name))

    assert difference(image.pixels, REFERENCE) < 1.5


def tiff(tags: dict[int, int], data: bytes, num_strips: int = 1) -> bytes:
    """Write a TIFF of 64×64 gray pixels with these tags; `data` is its only tile or strip, whatever it is said to be."""
    place, count = (324, 325) if 322 in tags else (273, 279)
    start = 8 + 2 + 12 * (len(tags) + 7) + 4
    tags = {256: 64, 257: 64, 258: 8, 259: 1, 262: 1} | tags | {place: start, count: len(data)}
    lines = []
    for tag, value in sorted(tags.items()):
        number = num_strips if tag in (place, count) else 1
        lines.append(struct.pack("<HHII", tag, 4, number, start + len(data) if number > 1 else value))
    head = b"II*\0" + struct.pack("<IH", 8, len(lines)) + b"".join(lines) + bytes(4)
    return head.ljust(start, b"\0") + data + struct.pack("<I", start) * num_strips * (num_strips > 1)


@pytest.mark.parametrize(("bits", "white_is"), [(16, 1), (16, 0), (12, 1)])
def test_decode_reads_deep_tiffs_the_right_way_round(bits: int, white_is: int) -> None:
    """What is white is said by one tag, how many steps lead there by another."""
    gray = np.tile(np.arange(64) / 63, (64, 1))
    values = np.rint((gray if white_is else 1 - gray) * (2**bits - 1)).astype(np.uint16).ravel()
    if bits == 16:
        data = values.astype("<u2").tobytes()
    else:
        first, second = values[::2], values[1::2]
        packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1)
        data = packed.astype(np.uint8).tobytes()

    pixels = decode_image(tiff({258: bits, 262: white_is}, data)).pixels

    assert difference(pixels, np.rint(255 * gray).astype(np.uint8)) < 1


def test_decode_rejects_tiles_that_are_far_larger_than_the_image() -> None:
    """A tile of 20,000 pixels a side takes 400 MB, of which 64×64 pixels would be seen."""
    small = decode_image(tiff({322: 64, 323: 64}, bytes(64 * 64)))

    assert small.width_px == 64
    with pytest.raises(UnreadableImageError, match="20,000 × 20,000"):
        decode_image(tiff({259: 8, 322: 20_000, 323: 20_000}, zlib.compress(bytes(1000))))


@pytest.mark.parametrize("is_tiled", [False, True])
def test_decode_rejects_tiffs_of_very_many_parts(is_tiled: bool) -> None:
    """Pillow makes an object of each before anything else is known: gigabytes for ten megabytes."""
    sides = {322: 64, 323: 1} if is_tiled else {278: 1}
    content = tiff(sides, bytes(64), num_strips=30_000)

    with pytest.raises(UnreadableImageError, match="takes too long to read"):
        decode_image(content)


def test_decode_reads_no_tiff_of_many_parts_in_a_hurry() -> None:
    """A step each, on the event loop."""
    with pytest.raises(NeedsWorkerThreadError):
        decode_image(tiff({278: 1}, bytes(64), num_strips=300), fast_path_only=True)


def test_decode_rejects_more_tiles_than_cover_the_image() -> None:
    """Each would be decoded."""
    with pytest.raises(UnreadableImageError, match="400 tiles"):
        decode_image(tiff({322: 64, 323: 1}, bytes(64), num_strips=400))


def test_decode_rejects_heads_of_many_frames() -> None:
    """Each may name thousands of components, which Pillow keeps."""
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 8 + 3 * 200, 8, 64, 64, 200) + b"\x01\x11\x00" * 200

    with pytest.raises(UnreadableImageError, match="several frames"):
        decode_image(jpeg_with_head(frame))
    with pytest.raises(UnreadableImageError, match="several frames"):
        decode_image(jpeg_with_head(b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, 64, 64, 1) + b"\x01\x11\x00"))


def test_decode_rejects_more_strips_than_rows() -> None:
    """A quarter of a million strips of nothing cost a second."""
    with pytest.raises(UnreadableImageError, match="500 strips"):
        decode_image(tiff({278: 64}, bytes(64 * 64), num_strips=500))


def test_decode_keeps_no_memory_out_of_its_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """That there is no memory now says nothing about the image, which must not be rejected permanently."""

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(images, "_reduce_to_gray", fail)

    with pytest.raises(MemoryError):
        decode_image(encode(gradient(), "PNG"))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    """A film among the images must not fill the memory."""
    path = tmp_path / "film.jpg"
    with path.open("wb") as file:
        file.truncate(2**40)

    with pytest.raises(ImageTooLargeError, match="1,099,511,627,776 bytes"):
        read_image(path)


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


def test_decode_takes_the_first_frame() -> None:
    """Of an animation, the first frame counts."""
    frames = [Image.new("L", (30, 30), value) for value in (0, 255)]
    for name in ("GIF", "PNG", "WEBP", "TIFF"):
        content = encode(frames[0], name, save_all=True, append_images=frames[1:])
        assert decode_image(content).pixels.max() < 20, name


def test_decode_reads_phone_images_in_mpo() -> None:
    """A JPEG with a second image behind it (MPO, as phones write) is a JPEG."""
    content = encode(gradient(), "MPO", save_all=True, append_images=[gradient()])

    assert difference(decode_image(content).pixels, REFERENCE) < 3


def test_decode_of_a_large_image_equals_the_whole_conversion() -> None:
    """Working in strips gives what converting the whole image gives."""
    large = gradient(3000, 2000).convert("RGBA")

    assert difference(decode_image(encode(large, "PNG")).pixels, REFERENCE) < 1.5


def test_decode_rejects_nothing() -> None:
    """No bytes are an error of their own."""
    with pytest.raises(EmptyImageError, match="0 bytes"):
        decode_image(b"")


@pytest.mark.parametrize(
    "content",
    [b"hello", b"%PDF-1.7", b"\x00" * 100, b"%!PS-Adobe-3.0 EPSF-3.0", b"P5 2 2 255 aaaa", b"RIFF1234WAVEfmt "],
)
def test_decode_rejects_other_formats(content: bytes) -> None:
    """What is not an image of the six formats is rejected by its content."""
    with pytest.raises(UnsupportedFormatError, match="JPEG"):
        decode_image(content)


@pytest.mark.parametrize("name", ["ICO", "PPM", "TGA", "JPEG2000", "DDS", "PCX"])
def test_decode_rejects_decoders_that_are_off(name: str) -> None:
    """Images that Pillow could read, but strangers may not send, are rejected."""
    with pytest.raises(UnsupportedFormatError):
        decode_image(encode(gradient().convert("RGB"), name))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.9])
def test_decode_rejects_truncated_images(name: str, fraction: float) -> None:
    """A file cut short is rejected, never half decoded."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    content = encode(Image.fromarray(noise), name)

    with pytest.raises(UnreadableImageError, match=r"damaged|incomplete"):
        decode_image(content[: int(len(content) * fraction)])


def test_decode_checks_png_checksums() -> None:
    """A PNG with one flipped bit in its pixel data is rejected."""
    content = bytearray(encode(gradient(), "PNG"))
    content[content.index(b"IDAT") + 30] ^= 1

    with pytest.raises(UnreadableImageError):
        decode_image(bytes(content))


def test_decode_rejects_too_many_bytes() -> None:
    """Over 10 MiB nothing is looked at."""
    with pytest.raises(ImageTooLargeError, match="bytes"):
        decode_image(b"\xff\xd8\xff" + bytes(images.MAX_IMAGE_BYTES))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(6401, 6400), (20001, 10), (10, 30000), (60000, 60000)])
def test_decode_rejects_too_many_pixels_from_the_header(width: int, height: int) -> None:
    """An image that announces too many pixels is rejected before it is decoded."""
    with pytest.raises(ImageTooLargeError, match="pixels"):
        decode_image(png_header(width, height))


def test_decode_rejects_tiny_images() -> None:
    """Under 8 pixels a side there is not a face."""
    with pytest.raises(UnreadableImageError, match="at least 8"):
        decode_image(encode(Image.new("L", (7, 100)), "PNG"))


def test_decode_rejects_progressive_bombs() -> None:
    """A JPEG of very many scans is rejected, because each scan walks over the whole image."""
    content = encode(gradient(), "JPEG")
    bomb = content[:-2] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00" * 200 + content[-2:]

    with pytest.raises(UnreadableImageError, match="scans"):
        decode_image(bomb)


def test_decode_counts_scans_behind_an_early_end() -> None:
    """The decoder reads on behind an end that comes before any scan, and so must whoever counts."""
    content = encode(gradient(), "JPEG")
    bomb = content[:-2] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00" * 200 + content[-2:]

    with pytest.raises(UnreadableImageError):
        decode_image(b"\xff\xd8\xff\xd9" + bomb)


def test_decode_does_not_mind_what_hangs_behind_a_png() -> None:
    """Recovered files are padded with zeros."""
    assert difference(decode_image(encode(gradient(), "PNG") + bytes(500_000)).pixels, REFERENCE) == 0


def test_decode_counts_scans_behind_marks_that_stand_alone() -> None:
    """A mark without a length must not hide what follows."""
    content = encode(gradient(), "JPEG")
    hidden = b"\xff\x01\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00" * 200

    with pytest.raises(UnreadableImageError, match="scans"):
        decode_image(content[:-2] + hidden + content[-2:])


def test_decode_counts_the_scans_of_the_image_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A film behind the image and a thumbnail inside it, as phones write, do not count."""
    monkeypatch.setattr(images, "MAX_JPEG_SCANS", 1)
    monkeypatch.setattr(images, "MAX_JPEG_COEFFICIENT_BYTES", 0)
    thumbnail = encode(gradient(32, 32), "JPEG")
    content = encode(gradient(), "JPEG", comment=thumbnail * 3) + b"\xff\xda" * 500

    assert difference(decode_image(content).pixels, REFERENCE) < 3
    with pytest.raises(UnreadableImageError, match="scans"):
        decode_image(encode(gradient(), "JPEG", progressive=True))


def test_decode_rejects_progressive_images_that_need_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """All coefficients of a progressive JPEG are held at once; subsampled color needs half."""
    monkeypatch.setattr(images, "MAX_JPEG_COEFFICIENT_BYTES", 120 * 90 * 2 * 2)
    color = gradient().convert("RGB")

    decode_image(encode(color, "JPEG", progressive=True, subsampling=2))
    decode_image(encode(color, "JPEG", subsampling=0))
    with pytest.raises(ImageTooLargeError, match="progressive"):
        decode_image(encode(color, "JPEG", progressive=True, subsampling=0))


def test_decode_ignores_damaged_exif() -> None:
    """Nonsense in the EXIF block does not make a good image bad."""
    content = encode(gradient(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff junk")

    assert difference(decode_image(content).pixels, REFERENCE) < 3


def test_decode_never_raises_anything_else() -> None:
    """Whatever bytes are flipped, an image is accepted or rejected with a ImageError."""
    rng = np.random.default_rng()
    seed = int(rng.integers(2**32))
    rng = np.random.default_rng(seed)
    contents = [encode(gradient(48, 40).convert("RGB"), name) for name in FORMATS]
    for number in range(600):
        content = bytearray(contents[number % len(contents)])
        for _ in range(rng.integers(1, 8)):
            content[rng.integers(len(content))] = rng.integers(256)
        try:
            image = decode_image(bytes(content))
        except ImageError as error:
            assert error.code, seed
        else:
            assert image.pixels.shape == (64, 64), seed


@pytest.mark.parametrize(
    "content",
    [
        encode(gradient().resize((900, 700)), "PNG"),
        encode(gradient(), "JPEG", progressive=True),
        encode(gradient(), "BMP") + bytes(200_000),
    ],
    ids=["many pixels", "progressive", "many bytes"],
)
def test_decode_in_a_hurry_leaves_what_takes_longer(content: bytes) -> None:
    """Whoever is in a hurry gets the same pixels, or is told to come back with more time."""
    face = encode(gradient(), "PNG")

    assert (decode_image(face, fast_path_only=True).pixels == decode_image(face).pixels).all()
    assert decode_image(content).pixels.shape == (64, 64)
    with pytest.raises(images.NeedsWorkerThreadError):
        decode_image(content, fast_path_only=True)


def jpeg_with_head(segments: bytes) -> bytes:
    content = encode(gradient(), "JPEG")
    return content[:2] + b"\xff\xfe\x00\x02" + segments + content[2:]


@pytest.mark.parametrize(
    "segments",
    [
        b"\xff\xe1\x00\x0eExif\x00\x00" + b"\0" * 6,
        b"\xff\xfe\x00\x02",
        b"\xff" * 50,
        b"\x01" * 50,
    ],
    ids=["exif", "comments", "fill", "junk"],
)
def test_decode_rejects_heads_that_take_long_to_read(segments: bytes) -> None:
    """Pillow goes through them step by step, and adds EXIF up part by part: 21 s for ten megabytes."""
    decode_image(jpeg_with_head(segments))

    with pytest.raises(UnreadableImageError, match="takes too long to read"):
        decode_image(jpeg_with_head(segments * 3000))


@pytest.mark.parametrize("mark", [b"\xff\xd9", b"\xff\xd8", b"\xff\xf0", b"\xff\xc8"])
def test_no_mark_hides_the_rest_of_a_head(mark: bytes) -> None:
    """Pillow reads on behind marks that stand alone, so what follows is looked at, too."""
    with pytest.raises(UnreadableImageError, match="takes too long to read"):
        decode_image(jpeg_with_head(mark + b"\xff\xfe\x00\x02" * 3000))


@pytest.mark.parametrize("is_behind", [False, True], ids=["before", "behind"])
@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (b"iCCP", b"x\0\0" + zlib.compress(bytes(1_000_000))),
        (b"zTXt", b"\0\0" + zlib.compress(bytes(1_000_000))),
        (b"iTXt", b"\0\1\0\0\0" + zlib.compress(bytes(1_000_000))),
    ],
)
def test_decode_rejects_many_packed_chunks(kind: bytes, data: bytes, is_behind: bool) -> None:
    """A kilobyte becomes a megabyte each time; a few, as programs write them, are read, but not in a hurry."""
    content = encode(gradient(), "PNG")
    place = -12 if is_behind else 33

    def with_chunks(number: int) -> bytes:
        return content[:place] + chunk(kind, data) * number + content[place:]

    decode_image(with_chunks(1), fast_path_only=True)
    decode_image(with_chunks(3))
    with pytest.raises(NeedsWorkerThreadError):
        decode_image(with_chunks(3), fast_path_only=True)
    with pytest.raises(UnreadableImageError, match="takes too long to read"):
        decode_image(with_chunks(17))
