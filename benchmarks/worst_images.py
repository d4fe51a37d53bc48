"""Measure CPU time and memory of the most expensive images within the limits, each in its own process.

Usage: python -m benchmarks.worst_images
"""

from __future__ import annotations

import io
import multiprocessing
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 6324  # 6324² is just below 40 megapixels
WEBP_SIDE = 3464


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def flat(mode: str, side: int = SIDE) -> Image.Image:
    return Image.new(mode, (side, side))


def textured(side: int) -> Image.Image:
    """Return detail that compresses to just below 10 MB."""
    noise = np.random.default_rng(0).integers(0, 255, (side // 4, side // 4), dtype=np.uint8)
    return Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)


IMAGES: dict[str, Callable[[], bytes]] = {
    "PNG grayscale, 40 Mpx": lambda: encode(flat("L"), "PNG"),
    "PNG RGBA, 40 Mpx": lambda: encode(flat("RGBA"), "PNG"),
    "PNG palette, 40 Mpx": lambda: encode(flat("P"), "PNG"),
    "JPEG grayscale, 40 Mpx": lambda: encode(flat("L"), "JPEG"),
    "JPEG RGB, detailed, 40 Mpx": lambda: encode(textured(SIDE).convert("RGB"), "JPEG", quality=30),
    "JPEG CMYK, 40 Mpx": lambda: encode(flat("CMYK"), "JPEG"),
    "JPEG progressive RGB, 40 Mpx": lambda: encode(flat("RGB"), "JPEG", progressive=True),
    "JPEG progressive RGB 4:4:4, 24 Mpx": lambda: encode(flat("RGB", 4999), "JPEG", progressive=True, subsampling=0),
    "JPEG progressive, detailed, 40 Mpx": lambda: encode(
        textured(SIDE).convert("RGB"), "JPEG", progressive=True, quality=30
    ),
    "GIF, 40 Mpx": lambda: encode(flat("L"), "GIF"),
    "TIFF RGBA, LZW, 40 Mpx": lambda: encode(flat("RGBA"), "TIFF", compression="tiff_lzw"),
    "TIFF RGB, deflate, 40 Mpx": lambda: encode(flat("RGB"), "TIFF", compression="tiff_adobe_deflate"),
    "TIFF group 4, 40 Mpx": lambda: encode(flat("1"), "TIFF", compression="group4"),
    "WebP RGB, 12 Mpx": lambda: encode(flat("RGB", WEBP_SIDE), "WEBP"),
    "WebP RGBA lossless, 12 Mpx": lambda: encode(flat("RGBA", WEBP_SIDE), "WEBP", lossless=True),
    "BMP RGB, 3.4 Mpx (10 MB)": lambda: encode(flat("RGB", 1850), "BMP"),
}


def peak_megabytes() -> float:
    """Return the peak memory of this process; resource.getrusage would include the parent's."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def decode(content: bytes, connection: object) -> None:
    from emotion_assets.core.errors import ImageError
    from emotion_assets.core.images import decode_image

    decode_image(encode(flat("L", 64), "PNG"))  # load modules before measuring
    before = peak_megabytes()
    started = time.process_time()
    try:
        decode_image(content)
        outcome = "accepted"
    except ImageError as error:
        outcome = type(error).__name__
    seconds = time.process_time() - started
    megabytes = peak_megabytes() - before
    connection.send((outcome, seconds, megabytes))  # type: ignore[attr-defined]


def main() -> None:
    context = multiprocessing.get_context("spawn")
    print("| image | file kB | outcome | CPU s | MB |\n|---|---|---|---|---|")
    for name, make in IMAGES.items():
        content = make()
        receiver, sender = context.Pipe()
        process = context.Process(target=decode, args=(content, sender))
        process.start()
        outcome, seconds, megabytes = receiver.recv()
        process.join()
        print(f"| {name} | {len(content) / 1000:,.0f} | {outcome} | {seconds:.2f} | {megabytes:.0f} |", flush=True)


if __name__ == "__main__":
    main()
