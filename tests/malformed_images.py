"""A generator of malformed, hostile and merely unusual image files, each with the expected outcome."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

WIDTH, HEIGHT = 120, 90
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
LOSSY = {"JPEG", "WEBP"}
_UNDO_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True)
class MalformedImage:
    """The bytes of a file; the allowed mean gray difference, or the code of the rejection."""

    name: str
    content: bytes
    tolerance: float | None = None
    code: str | None = None
    reference: np.ndarray | None = None
    """uint8 (64, 64), the expected pixels of a valid image; the common gradient if None."""


def gradient(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """An image without symmetry: brighter to the right and to the bottom."""
    across, down = np.meshgrid(np.linspace(0, 180, width), np.linspace(0, 60, height))
    return Image.fromarray((across + down).astype(np.uint8))


def square(image: Image.Image) -> np.ndarray:
    """The 64×64 gray of an upright 8-bit image by the simplest means."""
    return np.asarray(image.convert("L").resize((64, 64), Image.Resampling.BILINEAR))


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def rotated(form: str, orientation: int) -> bytes:
    """The gradient as a rotated camera stores it, with the matching EXIF tag."""
    undo = _UNDO_ORIENTATION.get(orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(gradient() if undo is None else gradient().transpose(undo), form, exif=exif)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def encode_png(width: int, height: int, rows: bytes, form: bytes = b"\x08\0\0\0\0", extra: bytes = b"") -> bytes:
    """A PNG of these rows; `form` has bits, color type, compression, filter and interlacing."""
    header, data = struct.pack(">II", width, height) + form, zlib.compress(rows)
    chunks = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def encode_tiff(tags: dict[int, int], data: bytes, num_strips: int = 1) -> bytes:
    """A TIFF of 64×64 gray pixels with these tags, in which `data` is every strip or tile."""
    offsets, counts = (324, 325) if 322 in tags else (273, 279)
    start = 8 + 2 + 12 * (len(tags) + 7) + 4
    tags = {256: 64, 257: 64, 258: 8, 259: 1, 262: 1} | tags | {offsets: start, counts: len(data)}
    entries = []
    for tag, value in sorted(tags.items()):
        number = num_strips if tag in (offsets, counts) else 1
        entries.append(struct.pack("<HHII", tag, 4, number, start + len(data) if number > 1 else value))
    header = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4)
    return header.ljust(start, b"\0") + data + struct.pack("<I", start) * num_strips * (num_strips > 1)


def add_jpeg_segments(segments: bytes) -> bytes:
    """The gradient as a JPEG with these segments at the start of its header."""
    content = encode(gradient(), "JPEG")
    return content[:2] + b"\xff\xfe\x00\x02" + segments + content[2:]


def malformed_images() -> Iterator[MalformedImage]:
    """Yield every kind, valid ones first."""
    yield from _modes()
    yield from _orientations()
    yield from _deep()
    yield from _variants()
    yield from _animations()
    yield from _truncations()
    yield from _damages()
    yield from _bombs()
    yield from _other_formats()


def _modes() -> Iterator[MalformedImage]:
    modes = {
        "JPEG": ("L", "RGB", "CMYK"),
        "PNG": ("1", "L", "LA", "P", "RGB", "RGBA"),
        "WEBP": ("L", "RGB", "RGBA"),
        "GIF": ("1", "L", "P", "RGB"),
        "BMP": ("1", "L", "P", "RGB", "RGBA"),
        "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"),
    }
    for form, names in modes.items():
        for mode in names:
            if mode == "LAB":
                from PIL import ImageCms

                profile = ImageCms.createProfile("LAB")
                image = ImageCms.profileToProfile(
                    gradient().convert("RGB"), ImageCms.createProfile("sRGB"), profile, outputMode="LAB"
                )
            else:
                image = gradient().convert(mode)
            tolerance = 45 if mode == "1" else 5 if mode in {"P", "CMYK", "LAB"} or form in LOSSY else 1.5
            yield MalformedImage(f"{form} {mode}", encode(image, form), tolerance)


def _orientations() -> Iterator[MalformedImage]:
    for form in ("JPEG", "PNG", "WEBP", "TIFF"):
        for orientation in range(1, 9):
            yield MalformedImage(f"{form} orientation {orientation}", rotated(form, orientation), 3)
    for orientation in (0, 9, 255):
        yield MalformedImage(f"JPEG orientation {orientation}", rotated("JPEG", orientation), 3)


def _deep() -> Iterator[MalformedImage]:
    values = np.asarray(gradient()).astype(np.uint16) * 257
    yield MalformedImage("PNG 16 bit", encode(Image.fromarray(values), "PNG"), 1.5)
    yield MalformedImage("TIFF 16 bit", encode(Image.fromarray(values), "TIFF"), 1.5)
    yield MalformedImage("TIFF 32 bit", encode(gradient().convert("I"), "TIFF"), 1.5)
    yield MalformedImage("TIFF 32 bit wide", encode(Image.fromarray(values.astype(np.int32)), "TIFF"), 1.5)
    unit = np.asarray(gradient(), dtype=np.float32) / 255
    yield MalformedImage("TIFF float 0..1", encode(Image.fromarray(unit), "TIFF"), 1.5)
    yield MalformedImage("TIFF float 0..255", encode(Image.fromarray(unit * 255), "TIFF"), 1.5)
    unit = unit.copy()
    unit[0, 0] = np.nan
    yield MalformedImage("TIFF float NaN", encode(Image.fromarray(unit), "TIFF"), code="unreadable_image")
    negative = Image.fromarray(np.full((20, 20), -5, dtype=np.int32))
    yield MalformedImage("TIFF negative", encode(negative, "TIFF"), code="unreadable_image")
    rows = b"".join(b"\0" + np.repeat(row[:, None], 3, axis=1).astype(">u2").tobytes() for row in values)
    yield MalformedImage("PNG 16 bit RGB", encode_png(WIDTH, HEIGHT, rows, b"\x10\x02\0\0\0"), 1.5)


def _variants() -> Iterator[MalformedImage]:
    gray, color = gradient(), gradient().convert("RGB")
    for quality in (1, 10, 50, 100):
        yield MalformedImage(
            f"JPEG quality {quality}", encode(gray, "JPEG", quality=quality), 14 if quality == 1 else 4
        )
    for name, options in (
        ("progressive", {"progressive": True}),
        ("optimized", {"optimize": True}),
        ("4:4:4", {"subsampling": 0}),
        ("4:2:0", {"subsampling": 2}),
        ("restart markers", {"restart_marker_blocks": 4}),
        ("comment", {"comment": b"\xff\xda" * 20}),
        ("icc", {"icc_profile": b"not a profile"}),
        ("dpi", {"dpi": (300, 300)}),
        ("broken exif", {"exif": b"Exif\x00\x00II*\x00\xff\xff\xff\xff junk"}),
    ):
        yield MalformedImage(f"JPEG {name}", encode(color, "JPEG", **options), 4)
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield MalformedImage(f"TIFF {compression}", encode(color, "TIFF", compression=compression), 4)
    yield MalformedImage("TIFF group4", encode(gray.convert("1"), "TIFF", compression="group4"), 45)
    yield MalformedImage("TIFF big", encode(color, "TIFF", big_tiff=True), 1.5)
    yield MalformedImage("WEBP lossless", encode(color, "WEBP", lossless=True), 1.5)
    yield MalformedImage("WEBP quality 1", encode(color, "WEBP", quality=1), 8)
    yield MalformedImage("PNG interlaced", _interlaced(gray), 1.5)
    yield MalformedImage("GIF interlaced", encode(gray, "GIF", interlace=True), 1.5)
    yield MalformedImage("GIF 87a", b"GIF87a" + encode(gray, "GIF")[6:], 1.5)
    yield MalformedImage("BMP top down", _top_down(encode(color, "BMP")), 1.5)
    white = np.full((64, 64), 255, dtype=np.uint8)
    for form, mode in (("PNG", "RGBA"), ("PNG", "LA"), ("WEBP", "RGBA"), ("TIFF", "RGBA")):
        clear = Image.new(mode, (50, 50))
        yield MalformedImage(f"{form} {mode} transparent", encode(clear, form), 1, reference=white)
    keyed = Image.new("L", (50, 50), 7)
    yield MalformedImage("PNG L with a transparent gray", encode(keyed, "PNG", transparency=7), 1, reference=white)
    palette = Image.new("P", (50, 50), 0)
    palette.putpalette([10, 10, 10] * 256)
    yield MalformedImage("PNG P transparent", encode(palette, "PNG", transparency=0), 1, reference=white)
    yield MalformedImage("GIF transparent", encode(palette, "GIF", transparency=0), 1, reference=white)
    for width, height in ((8, 8), (9, 400), (1000, 8), (64, 64), (63, 65), (127, 129), (1600, 1200)):
        image = gradient(width, height)
        yield MalformedImage(f"PNG {width}x{height}", encode(image, "PNG"), 2.5, reference=square(image))
        yield MalformedImage(f"JPEG {width}x{height}", encode(image, "JPEG", quality=95), 3, reference=square(image))
    for form in FORMATS:
        yield MalformedImage(f"{form} with junk behind", encode(color, form) + bytes(range(256)) * 8, 4)
    inverted = ImageOps.invert(gray)
    yield MalformedImage("PNG inverted", encode(inverted, "PNG"), 1.5, reference=square(inverted))
    yield MalformedImage("JPEG in MPO", encode(color, "MPO", save_all=True, append_images=[color]), 4)


def _interlaced(image: Image.Image) -> bytes:
    """Adam7, which Pillow reads but does not write."""
    values, rows = np.asarray(image), b""
    for left, top, across, down in (
        (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
    ):  # fmt: skip
        for row in values[top::down, left::across]:
            rows += b"\0" + row.tobytes()
    return encode_png(image.width, image.height, rows, b"\x08\0\0\0\x01")


def _top_down(content: bytes) -> bytes:
    """The same BMP with a negative height and its rows in reverse order."""
    start = struct.unpack_from("<I", content, 10)[0]
    stride = (len(content) - start) // HEIGHT
    rows = [content[start + i * stride : start + (i + 1) * stride] for i in range(HEIGHT)]
    return content[:22] + struct.pack("<i", -HEIGHT) + content[26:start] + b"".join(reversed(rows))


def _animations() -> Iterator[MalformedImage]:
    frames = [gradient(), Image.new("L", (WIDTH, HEIGHT), 255)]
    for form in ("GIF", "PNG", "WEBP", "TIFF"):
        content = encode(frames[0], form, save_all=True, append_images=frames[1:])
        yield MalformedImage(f"{form} of two frames", content, 4)


def _truncations() -> Iterator[MalformedImage]:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 80), dtype=np.uint8))
    for form in FORMATS:
        content = encode(noise, form)
        for fraction in (0.02, 0.25, 0.5, 0.75, 0.95):
            cut = content[: max(16, int(len(content) * fraction))]
            yield MalformedImage(f"{form} cut at {fraction:.0%}", cut, code="unreadable_image")


def _damages() -> Iterator[MalformedImage]:
    png = encode(gradient(), "PNG")
    flipped = bytearray(png)
    flipped[png.index(b"IDAT") + 40] ^= 4
    yield MalformedImage("PNG with a flipped bit", bytes(flipped), code="unreadable_image")
    checksum = bytearray(png)
    checksum[png.index(b"IEND") - 5] ^= 1
    yield MalformedImage("PNG with a wrong checksum", bytes(checksum), code="unreadable_image")
    yield MalformedImage("PNG without an end", png[:-12], code="unreadable_image")
    zeroed = png[: len(png) // 2] + bytes(len(png) - len(png) // 2)
    yield MalformedImage("PNG of half zeros", zeroed, code="unreadable_image")
    for form in FORMATS:
        yield MalformedImage(f"{form} signature only", encode(gradient(), form)[:12], code="unreadable_image")
    yield MalformedImage("no bytes", b"", code="empty_image")
    for side in (1, 2, 7):
        yield MalformedImage(f"PNG {side}x{side}", encode(Image.new("L", (side, side)), "PNG"), code="unreadable_image")
    yield MalformedImage("PNG 7x500", encode(gradient(7, 500), "PNG"), code="unreadable_image")
    yield MalformedImage(
        "PNG of zero width",
        encode_png(0, 9, b""),
        code="unreadable_image",
    )


def _bombs() -> Iterator[MalformedImage]:
    for width, height in ((6401, 6400), (13_000, 13_000), (20_001, 8), (8, 65_000), (100_000, 100_000)):
        content = encode_png(width, height, bytes(10_000))
        yield MalformedImage(f"PNG of {width}x{height}", content, code="image_too_large")
    jpeg = bytearray(encode(gradient(), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 9000, 9000)
    yield MalformedImage("JPEG of 9000x9000", bytes(jpeg), code="image_too_large")
    gif = bytearray(encode(gradient(), "GIF"))
    gif[6:10] = struct.pack("<HH", 65_535, 65_535)
    yield MalformedImage("GIF of 65535x65535", bytes(gif), code="image_too_large")
    bmp = bytearray(encode(gradient(), "BMP"))
    bmp[18:26] = struct.pack("<ii", 30_000, 30_000)
    yield MalformedImage("BMP of 30000x30000", bytes(bmp), code="image_too_large")
    lossless = struct.pack("<I", (16_383) | (16_383 << 14))
    webp = b"VP8L" + struct.pack("<I", 10) + b"\x2f" + lossless + bytes(5)
    yield MalformedImage(
        "WEBP of 16384x16384",
        b"RIFF" + struct.pack("<I", 4 + len(webp)) + b"WEBP" + webp,
        code="image_too_large",
    )
    progressive = encode(gradient(800, 600), "JPEG", progressive=True)
    last = progressive.rindex(b"\xff\xda")
    many = progressive[:last] + progressive[last:-2] * 1500 + progressive[-2:]
    yield MalformedImage("JPEG of 1500 scans", many, code="unreadable_image")
    text = png_chunk(b"zTXt", b"c\0\0" + zlib.compress(bytes(64 * 2**20)))
    rows = b"".join(b"\0" + row.tobytes() for row in np.asarray(gradient()))
    content = encode_png(WIDTH, HEIGHT, rows, extra=text)
    yield MalformedImage("PNG with 64 MiB of text", content, code="unreadable_image")
    yield MalformedImage("11 MB", b"\xff\xd8\xff" + bytes(11 * 2**20), code="image_too_large")


def _other_formats() -> Iterator[MalformedImage]:
    color = gradient().convert("RGB")
    for form in ("ICO", "PPM", "TGA", "JPEG2000", "DDS", "PCX", "SGI", "EPS", "IM", "PDF", "ICNS", "AVIF", "QOI"):
        yield MalformedImage(form, encode(color, form), code="unsupported_format")
    for name, content in (
        ("text", b"this is a face"),
        ("html", b"<html><script>alert(1)</script></html>"),
        ("svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        ("zip", b"PK\x03\x04" + bytes(50)),
        ("pickle", b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07builtin."),
        ("postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        ("heic", b"\x00\x00\x00\x18ftypheic" + bytes(60)),
        ("mp4", b"\x00\x00\x00\x18ftypmp42" + bytes(60)),
        ("wav", b"RIFF\x24\x00\x00\x00WAVEfmt "),
        ("elf", b"\x7fELF" + bytes(60)),
        ("zeros", bytes(1000)),
        ("fits", b"SIMPLE  =                    T" + bytes(2850)),
        ("psd", b"8BPS\x00\x01" + bytes(60)),
        ("one byte", b"\xff"),
        ("jpeg xl", b"\xff\x0a" + bytes(60)),
    ):
        yield MalformedImage(name, content, code="unsupported_format")
