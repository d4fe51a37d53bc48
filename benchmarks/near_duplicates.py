"""How similar images are: pairs by similarity with how often their labels differ, and galleries to look at.

Usage: python -m benchmarks.near_duplicates RAW_DIR GALLERY.png      on real faces; never commit that gallery
       python -m benchmarks.near_duplicates --drawn GALLERY.png      what a changed copy of a drawn face is worth
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from emotion_assets.core.classes import EMOTIONS, emotion_from_folder
from emotion_assets.core.images import decode_image
from emotion_assets.demo.faces import draw_face
from emotion_assets.steps.ingest import near_duplicates
from emotion_assets.steps.ingest.near_duplicates import compute_descriptors

EDGES = (0.75, 0.78, 0.80, 0.82, 0.85, 0.88, 0.90, 0.94, 0.98, 1.01)
PAIRS_SHOWN = 12


def _with_bar(image: Image.Image) -> Image.Image:
    barred = image.copy()
    barred.paste(200, (0, 60, 96, 68))
    return barred


CORRUPTIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "itself": lambda image: image,
    "mirrored": ImageOps.mirror,
    "half the size": lambda image: image.resize((48, 48)),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.5),
    "flatter": lambda image: ImageEnhance.Contrast(image).enhance(0.4),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    "cropped 2 %": lambda image: image.crop((2, 2, 94, 94)),
    "cropped 5 %": lambda image: image.crop((5, 5, 91, 91)),
    "turned 3°": lambda image: image.rotate(3, Image.Resampling.BILINEAR),
    "turned 8°": lambda image: image.rotate(8, Image.Resampling.BILINEAR),
    "a bar across": _with_bar,
    "another face": lambda _: Image.open(io.BytesIO(draw_face("happy", np.random.default_rng(77)))),
}


def similarities(pixels: np.ndarray) -> np.ndarray:
    """All similarities, the larger of straight and mirrored, (image, image) in -1..1."""
    descriptors = compute_descriptors(pixels).astype(np.float32) / near_duplicates._SCALE  # noqa: SLF001
    mirrored = descriptors * np.where(near_duplicates._IS_ODD, -1, 1)  # noqa: SLF001
    return np.maximum(descriptors @ descriptors.T, mirrored @ descriptors.T)


def show_drawn(path: Path) -> None:
    """Write a gallery of a drawn face and changed copies, each with its similarity."""
    figure = Figure(figsize=(14, 4.2))
    grid = figure.subplots(3, len(CORRUPTIONS))
    for row, seed in enumerate((3, 4, 5)):
        emotion = EMOTIONS[seed % len(EMOTIONS)]
        original = Image.open(io.BytesIO(draw_face(emotion, np.random.default_rng(seed)))).convert("L")
        for column, (name, change) in enumerate(CORRUPTIONS.items()):
            buffer = io.BytesIO()
            change(original).save(buffer, "JPEG", quality=70)
            pair = np.stack([decode_image(_jpeg(original)).pixels, decode_image(buffer.getvalue()).pixels])
            axes = grid[row][column]
            axes.imshow(pair[1], cmap="gray", vmin=0, vmax=255)
            axes.set_xlabel(f"{similarities(pair)[0, 1]:.2f}")
            axes.set(xticks=[], yticks=[])
            if row == 0:
                axes.set_title(name, fontsize=8)
    figure.savefig(path, dpi=80, bbox_inches="tight")


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def count_real(raw_dir: Path, path: Path) -> None:
    """Print pairs by similarity, and write a gallery of random ones of each bin."""
    files = [file for file in sorted(raw_dir.rglob("*.jpg")) if emotion_from_folder(file.parent.name)]
    pixels = np.stack([decode_image(file.read_bytes()).pixels for file in files])
    labels = np.array([emotion_from_folder(file.parent.name) for file in files])
    found = []
    descriptors = compute_descriptors(pixels).astype(np.float32) / near_duplicates._SCALE  # noqa: SLF001
    for vectors in (descriptors, descriptors * np.where(near_duplicates._IS_ODD, -1, 1)):  # noqa: SLF001
        for start in range(0, len(files), 2048):
            block = vectors[start : start + 2048] @ descriptors.T
            first, second = np.nonzero(block >= EDGES[0])
            keep = first + start < second
            found.append(np.stack([first[keep] + start, second[keep], block[first[keep], second[keep]]], axis=1))
    pairs = np.concatenate(found)
    rng = np.random.default_rng(0)
    rows = []
    print("| similarity | pairs | other label |\n|---|---|---|")
    for low, high in pairwise(EDGES):
        chosen = pairs[(pairs[:, 2] >= low) & (pairs[:, 2] < high)]
        first, second = chosen[:, 0].astype(int), chosen[:, 1].astype(int)
        differ = float((labels[first] != labels[second]).mean()) if len(chosen) else 0.0
        print(f"| {low:.2f} to {min(high, 1):.2f} | {len(chosen):,} | {differ:.1%} |")
        if len(chosen) >= PAIRS_SHOWN:
            sample = rng.choice(len(chosen), PAIRS_SHOWN, replace=False)
            rows.append(np.concatenate([np.concatenate([pixels[first[i]], pixels[second[i]]]) for i in sample], axis=1))
    Image.fromarray(np.concatenate(rows)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("raw_dir", type=Path, nargs="?")
    parser.add_argument("gallery", type=Path)
    parser.add_argument("--drawn", action="store_true")
    options = parser.parse_args()
    if options.drawn or options.raw_dir is None:
        show_drawn(options.gallery)
    else:
        count_real(options.raw_dir, options.gallery)


if __name__ == "__main__":
    main()
