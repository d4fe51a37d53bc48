"""Count pairs of images by similarity, with how often their labels differ, and write galleries for inspection.

Usage: python -m benchmarks.near_duplicates RAW_DIR GALLERY.png      real faces; never commit that gallery
       python -m benchmarks.near_duplicates --drawn GALLERY.png      changed copies of drawn faces
       python -m benchmarks.near_duplicates --conflicts [RAW_DIR]    pairs with different labels, real and drawn
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

from benchmarks.labelled_faces import find_labelled, read_pixels
from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.images import Pixels, decode_image
from emotion_assets.demo.faces import draw_face, draw_frame
from emotion_assets.steps.ingest.near_duplicates import component_labels, compute_descriptors, similar_pairs

EDGES = (0.75, 0.78, 0.80, 0.82, 0.85, 0.88, 0.90, 0.94, 0.98, 1.01)
PAIRS_SHOWN = 12
BLOCK_ROWS = 2048


def _draw_bar(image: Image.Image) -> Image.Image:
    barred = image.copy()
    barred.paste(200, (0, 60, 96, 68))
    return barred


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "unchanged": lambda image: image,
    "mirrored": ImageOps.mirror,
    "half the size": lambda image: image.resize((48, 48)),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.5),
    "lower contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.4),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    "cropped 2 %": lambda image: image.crop((2, 2, 94, 94)),
    "cropped 5 %": lambda image: image.crop((5, 5, 91, 91)),
    "rotated 3°": lambda image: image.rotate(3, Image.Resampling.BILINEAR),
    "rotated 8°": lambda image: image.rotate(8, Image.Resampling.BILINEAR),
    "bar": _draw_bar,
    "another face": lambda _: Image.open(io.BytesIO(draw_face("happy", np.random.default_rng(77)))),
}


def unit_descriptors(pixels: Pixels) -> np.ndarray:
    """Return descriptors of length 1, float32 (image, feature)."""
    descriptors = compute_descriptors(pixels).astype(np.float32)
    return descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)


def similarity(first: Pixels, second: Pixels) -> float:
    """Return the similarity of two images, -1..1: the larger of that with the second and that with its mirror image."""
    candidates = np.stack([first, second, second[:, ::-1]])
    descriptors = unit_descriptors(candidates)
    return float((descriptors[1:] @ descriptors[0]).max())


def show_drawn(path: Path) -> None:
    """Write a gallery of drawn faces and changed copies, each with its similarity."""
    figure = Figure(figsize=(14, 4.2))
    grid = figure.subplots(3, len(CHANGES))
    for row, seed in enumerate((3, 4, 5)):
        emotion = EMOTIONS[seed % len(EMOTIONS)]
        original = Image.open(io.BytesIO(draw_face(emotion, np.random.default_rng(seed)))).convert("L")
        for column, (name, change) in enumerate(CHANGES.items()):
            buffer = io.BytesIO()
            change(original).save(buffer, "JPEG", quality=70)
            before, after = decode_image(_encode(original)).pixels, decode_image(buffer.getvalue()).pixels
            axes = grid[row][column]
            axes.imshow(after, cmap="gray", vmin=0, vmax=255)
            axes.set_xlabel(f"{similarity(before, after):.2f}")
            axes.set(xticks=[], yticks=[])
            if row == 0:
                axes.set_title(name, fontsize=8)
    figure.savefig(path, dpi=80, bbox_inches="tight")


def _encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def count_real(raw_dir: Path, path: Path) -> None:
    """Print pairs by similarity, once straight and once mirrored, and write a gallery of random ones of each bin."""
    files, labels = find_labelled(raw_dir)
    pixels = read_pixels(files)
    found = []
    descriptors = unit_descriptors(pixels)
    for vectors in (descriptors, unit_descriptors(pixels[:, :, ::-1])):
        for start in range(0, len(files), BLOCK_ROWS):
            block = vectors[start : start + BLOCK_ROWS] @ descriptors.T
            first, second = np.nonzero(block >= EDGES[0])
            keep = first + start < second
            found.append(np.stack([first[keep] + start, second[keep], block[first[keep], second[keep]]], axis=1))
    pairs = np.concatenate(found)
    rng = np.random.default_rng(0)
    rows = []
    print("| similarity | pairs | different labels |\n|---|---|---|")
    for low, high in pairwise(EDGES):
        chosen = pairs[(pairs[:, 2] >= low) & (pairs[:, 2] < high)]
        first, second = chosen[:, 0].astype(int), chosen[:, 1].astype(int)
        differ = float((labels[first] != labels[second]).mean()) if len(chosen) else 0.0
        print(f"| {low:.2f} to {min(high, 1):.2f} | {len(chosen):,} | {differ:.1%} |")
        if len(chosen) >= PAIRS_SHOWN:
            sample = rng.choice(len(chosen), PAIRS_SHOWN, replace=False)
            rows.append(np.concatenate([np.concatenate([pixels[first[i]], pixels[second[i]]]) for i in sample], axis=1))
    if rows:
        Image.fromarray(np.concatenate(rows)).save(path)


def show_conflicts(raw_dir: Path | None) -> None:
    """Print the similarities of near-duplicates with different labels, and the sizes of their groups."""
    print(
        "| pairs with different labels | pairs | 5 % | median | 95 % | largest | group sizes |\n"
        "|---|---|---|---|---|---|---|"
    )
    if raw_dir:
        files, labels = find_labelled(raw_dir)
        # Equal files would count as pairs of copies.
        pixels, first = np.unique(read_pixels(files), axis=0, return_index=True)
        print_conflicts("real faces", pixels, labels[first])
    for movement in (0.0, 0.5, 1.0):
        for subject in (1, 2, 3):
            frames = [
                (label, draw_frame(name, subject, number, movement=movement))
                for label, name in enumerate(EMOTIONS)
                for number in range(40)
            ]
            pixels = np.stack([decode_image(content).pixels for _, content in frames])
            title = f"frames of one person, movement {movement:g}, subject {subject}"
            print_conflicts(title, pixels, np.array([label for label, _ in frames]))


def print_conflicts(title: str, pixels: Pixels, labels: np.ndarray) -> None:
    """Print a row of the table of `show_conflicts`."""
    descriptors = compute_descriptors(pixels)
    pairs = similar_pairs(descriptors, np.zeros(len(pixels), dtype=np.bool_))
    groups = component_labels(pairs, len(pixels))
    differ = pairs[labels[pairs[:, 0]] != labels[pairs[:, 1]]]
    straight, mirrored = unit_descriptors(pixels), unit_descriptors(pixels[:, :, ::-1])
    values = np.maximum(*((straight[differ[:, 0]] * other[differ[:, 1]]).sum(axis=1) for other in (straight, mirrored)))
    sizes = np.bincount(groups)[groups[differ[:, 0]]]
    low, middle, high = np.percentile(values, [5, 50, 95])
    print(
        f"| {title} | {len(differ):,} | {low:.2f} | {middle:.2f} | {high:.3f} | {values.max():.3f} "
        f"| {sizes.min()} to {sizes.max()} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("raw_dir", type=Path, nargs="?")
    parser.add_argument("gallery", type=Path, nargs="?")
    parser.add_argument("--drawn", action="store_true")
    parser.add_argument("--conflicts", action="store_true")
    options = parser.parse_args()
    if options.conflicts:
        show_conflicts(options.raw_dir)
    elif options.drawn or options.raw_dir is None:
        show_drawn(options.gallery or options.raw_dir)
    else:
        count_real(options.raw_dir, options.gallery)


if __name__ == "__main__":
    main()
