from __future__ import annotations

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
from emotion_assets.core.images import MAX_IMAGE_BYTES, decode_image, needs_worker_thread, read_image
from tests.malformed_images import (
    FORMATS,
    MalformedImage,
    encode,
    encode_png,
    encode_tiff,
    gradient,
    malformed_images,
    png_chunk,
    rotated,
)


def add_png_chunks(number: int) -> bytes:
    content = encode(gradient(), "PNG")
    return content[:33] + png_chunk(b"zTXt", b"c\0\0" + zlib.compress(bytes(1_000_000))) * number + content[33:]


def difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(int) - second.astype(int)).mean())


REFERENCE = decode_image(encode(gradient(), "PNG")).pixels
MALFORMED = list(malformed_images())
SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00"


def test_malformed_images_are_many_and_different() -> None:
    """At least 150 kinds, each under its own name."""
    assert len({image.name for image in MALFORMED}) == len(MALFORMED) >= 150


@pytest.mark.parametrize("image", MALFORMED, ids=lambda image: image.name)
def test_malformed_image_is_decoded_or_rejected(image: MalformedImage) -> None:
    """A valid image has the right pixels, any other the right code; asking for a thread never fails."""
    assert needs_worker_thread(image.content) in {True, False}
    try:
        pixels = decode_image(image.content).pixels
    except ImageError as error:
        assert error.code == image.code, error
        assert len(str(error)) > 20
    else:
        assert image.code is None, "accepted"
        assert image.tolerance is not None
        reference = REFERENCE if image.reference is None else image.reference
        assert difference(pixels, reference) <= image.tolerance


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_decode_gives_the_same_pixels_for_every_format(name: str, mode: str) -> None:
    """An image has the same pixels in every format, within a lossy one's error."""
    image = decode_image(encode(gradient().convert(mode), name))

    assert image.pixels.shape == (64, 64)
    assert image.pixels.dtype == np.uint8
    assert (image.width_px, image.height_px, image.format) == (120, 90, name)
    assert difference(image.pixels, REFERENCE) < (3 if name in {"JPEG", "WEBP"} else 1.5)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_applies_exif_orientation(name: str, orientation: int) -> None:
    """A rotated image with the matching EXIF tag decodes like the upright one."""
    image = decode_image(rotated(name, orientation))

    assert difference(image.pixels, REFERENCE) < 3


def test_decode_rejects_tiles_that_are_far_larger_than_the_image() -> None:
    """A tile of 20,000 pixels a side takes 400 MB for 64×64 pixels."""
    small = decode_image(encode_tiff({322: 64, 323: 64}, bytes(64 * 64)))

    assert small.width_px == 64
    with pytest.raises(UnreadableImageError, match="20,000 × 20,000"):
        decode_image(encode_tiff({259: 8, 322: 20_000, 323: 20_000}, zlib.compress(bytes(1000))))


def test_decode_rejects_more_tiles_than_cover_the_image() -> None:
    """Each would be decoded."""
    with pytest.raises(UnreadableImageError, match="400 tiles"):
        decode_image(encode_tiff({322: 64, 323: 1}, bytes(64), num_strips=400))


def test_decode_rejects_more_strips_than_rows() -> None:
    """A quarter of a million strips of nothing cost a second."""
    with pytest.raises(UnreadableImageError, match="500 strips"):
        decode_image(encode_tiff({278: 64}, bytes(64 * 64), num_strips=500))


def test_decode_does_not_reject_images_when_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says nothing about the image, which must not be rejected permanently."""

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)

    with pytest.raises(MemoryError):
        decode_image(encode(gradient(), "PNG"))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    """A video among the images must not fill the memory."""
    path = tmp_path / "film.jpg"
    with path.open("wb") as file:
        file.truncate(2**40)

    with pytest.raises(ImageTooLargeError, match="1,099,511,627,776 bytes"):
        read_image(path)


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


def test_decode_rejects_empty_files() -> None:
    """An empty file has its own error."""
    with pytest.raises(EmptyImageError, match="0 bytes"):
        decode_image(b"")


@pytest.mark.parametrize(
    "content",
    [b"hello", b"%PDF-1.7", b"\x00" * 100, b"%!PS-Adobe-3.0 EPSF-3.0", b"P5 2 2 255 aaaa", b"RIFF1234WAVEfmt "],
)
def test_decode_rejects_other_formats(content: bytes) -> None:
    """Anything but the six formats is rejected by its content."""
    with pytest.raises(UnsupportedFormatError, match="JPEG"):
        decode_image(content)


@pytest.mark.parametrize("name", ["ICO", "PPM", "TGA", "JPEG2000", "DDS", "PCX"])
def test_decode_rejects_disabled_formats(name: str) -> None:
    """Formats that Pillow reads but users may not send are rejected."""
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
    """Over 10 MiB nothing is parsed."""
    with pytest.raises(ImageTooLargeError, match="bytes"):
        decode_image(b"\xff\xd8\xff" + bytes(images.MAX_IMAGE_BYTES))


@pytest.mark.parametrize(("width", "height"), [(6401, 6400), (20001, 10), (10, 30000), (60000, 60000)])
def test_decode_rejects_too_many_pixels_from_the_header(width: int, height: int) -> None:
    """An image that announces too many pixels is rejected before it is decoded."""
    with pytest.raises(ImageTooLargeError, match="pixels"):
        decode_image(encode_png(width, height, b""))


def test_decode_rejects_tiny_images() -> None:
    """Images under 8 pixels a side are rejected."""
    with pytest.raises(UnreadableImageError, match="at least 8"):
        decode_image(encode(Image.new("L", (7, 100)), "PNG"))


def test_decode_rejects_progressive_bombs() -> None:
    """A JPEG of very many scans is rejected, because each scan walks over the whole image."""
    content = encode(gradient(), "JPEG")
    bomb = content[:-2] + SCAN * 200 + content[-2:]

    with pytest.raises(UnreadableImageError, match="scans"):
        decode_image(bomb)


def test_decode_ignores_bytes_behind_a_png() -> None:
    """Recovered files are padded with zeros."""
    assert difference(decode_image(encode(gradient(), "PNG") + bytes(500_000)).pixels, REFERENCE) == 0


def test_decode_counts_the_scans_of_the_image_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A video behind the image and a thumbnail inside it, as phones write, do not count."""
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


def test_the_message_is_for_people() -> None:
    """Pillow's own would name an object in memory."""
    with pytest.raises(UnreadableImageError) as caught:
        decode_image(b"\xff\xd8\xff broken")

    assert str(caught.value) == "The JPEG image is damaged or incomplete. Send an intact copy."


def test_decode_ignores_damaged_exif() -> None:
    """A damaged EXIF block does not matter."""
    content = encode(gradient(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff junk")

    assert difference(decode_image(content).pixels, REFERENCE) < 3


def test_decode_never_raises_anything_else() -> None:
    """Whatever bytes are flipped, an image is accepted or rejected with an ImageError."""
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
    ("content", "expected"),
    [
        (encode(gradient(), "PNG"), False),
        (encode(gradient(224, 224).convert("RGB"), "JPEG"), False),
        (encode(gradient(), "WEBP"), False),
        (encode(gradient(), "JPEG", comment=encode(gradient(900, 700), "JPEG", progressive=True)), False),
        (encode(gradient(900, 700), "PNG"), True),
        (encode(gradient(900, 700), "JPEG"), True),
        (encode(gradient(400, 400), "JPEG"), False),
        (encode(gradient(400, 400).convert("RGBA"), "PNG"), True),
        (encode(gradient(900, 700), "WEBP"), True),
        (encode(gradient(), "JPEG", progressive=True), True),
        (encode(gradient(), "BMP") + bytes(200_000), True),
        (encode_tiff({278: 1}, bytes(64), num_strips=300), True),
        (add_png_chunks(1), False),
        (add_png_chunks(3), True),
        (b"", False),
        (b"hello", False),
        (encode(gradient(), "WEBP")[:20], False),
        (add_png_chunks(17), False),
    ],
    ids=[
        "PNG",
        "JPEG",
        "WEBP",
        "JPEG with a thumbnail",
        "large PNG",
        "large JPEG",
        "medium JPEG",
        "medium PNG",
        "large WEBP",
        "progressive",
        "many bytes",
        "TIFF of many strips",
        "one compressed chunk",
        "three compressed chunks",
        "empty",
        "text",
        "truncated",
        "rejected header",
    ],
)
def test_needs_worker_thread_follows_the_header(content: bytes, expected: bool) -> None:
    """Large, progressive and intricate images need one; small images, and what is rejected at once, do not."""
    assert needs_worker_thread(content) == expected


def test_needs_worker_thread_finds_a_size_behind_another() -> None:
    """Pillow takes the last of several PNG headers."""
    small, large = encode_png(64, 64, b""), encode_png(900, 700, b"")

    assert needs_worker_thread(small[:33] + large[8:])


def test_webp_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its decoder needs far more memory."""
    monkeypatch.setattr(images, "MAX_WEBP_PIXELS", 120 * 90 - 1)

    decode_image(encode(gradient(), "PNG"))
    with pytest.raises(ImageTooLargeError, match="WEBP"):
        decode_image(encode(gradient(), "WEBP"))


def test_a_small_image_may_have_a_usual_tile() -> None:
    """Programs write tiles of 256 pixels a side, however small the image is."""
    assert decode_image(encode_tiff({322: 256, 323: 256}, bytes(256 * 256))).width_px == 64


def test_a_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(gradient(), "PNG").ljust(MAX_IMAGE_BYTES, b"\0"))

    assert read_image(path).width_px == 120
