"""Compare the search for near-duplicates in cells with the comparison of all images: recall of pairs, and CPU time.

Usage: python -m benchmarks.near_duplicate_cells SPLITS_DIR [--sizes 20000 200000]

Beyond the images of the splits, faces are means of two of them, and one in ten is a changed copy of another: brighter,
blurred, shifted by a pixel or mirrored.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from benchmarks.redesign import describe_processor
from emotion_assets.core.images import Pixels
from emotion_assets.steps.ingest import near_duplicates
from emotion_assets.steps.ingest.near_duplicates import Descriptors, compute_descriptors, similar_pairs
from emotion_assets.steps.splits.assignment import SPLITS
from emotion_assets.steps.splits.splits import read_split

CHUNK = 2000


def changed_copies(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Return a copy of each image: brighter, blurred, shifted or mirrored, all with a little noise."""
    images = pixels.astype(np.float32)
    images[0::4] = 0.8 * images[0::4] + 40
    images[1::4] = gaussian_filter(images[1::4], (0, 1.2, 1.2))
    images[2::4] = np.roll(images[2::4], 1, axis=2)
    images[3::4] = images[3::4, :, ::-1]
    return np.clip(images + rng.normal(0, 3, images.shape), 0, 255).astype(np.uint8)


def draw_descriptors(pixels: Pixels, size: int) -> tuple[Descriptors, set[tuple[int, ...]]]:
    """Return the descriptors of the images and of drawn ones, `size` in all, and the pairs of changed copies."""
    rng = np.random.default_rng(size)
    found = [compute_descriptors(pixels[start : start + CHUNK]) for start in range(0, min(size, len(pixels)), CHUNK)]
    num, copies = sum(map(len, found)), set()
    while num < size:
        first, second = (pixels[rng.integers(len(pixels), size=CHUNK)] for _ in range(2))
        faces = ((first.astype(np.uint16) + second) // 2).astype(np.uint8)
        found.append(compute_descriptors(np.concatenate([faces, changed_copies(faces[: CHUNK // 10], rng)])))
        copies |= {(num + index, num + CHUNK + index) for index in range(CHUNK // 10) if num + CHUNK + index < size}
        num += len(found[-1])
    return np.concatenate(found)[:size], copies


def search(descriptors: Descriptors, max_exact_images: int) -> tuple[set[tuple[int, ...]], float]:
    """Return the pairs, and the CPU seconds that they cost."""
    near_duplicates.MAX_EXACT_IMAGES = max_exact_images
    started = time.process_time()
    pairs = similar_pairs(descriptors, np.zeros(len(descriptors), dtype=np.bool_))
    return set(map(tuple, pairs.tolist())), time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("splits_dir", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--probes", type=int, nargs="+", default=[near_duplicates._NUM_PROBES])  # noqa: SLF001
    options = parser.parse_args()
    pixels = np.concatenate([read_split(options.splits_dir, name).pixels for name in SPLITS])
    print(f"{describe_processor()}; {len(pixels):,} real images\n")
    print("| images | pairs | cells probed | recall | of changed copies | CPU s, all | CPU s, cells | all / cells |")
    print("|---|---|---|---|---|---|---|---|")
    for size in options.sizes:
        descriptors, copies = draw_descriptors(pixels, size)
        every, cpu_all = search(descriptors, size)
        for probes in options.probes:
            near_duplicates._NUM_PROBES = probes  # noqa: SLF001
            found, cpu_cells = search(descriptors, 0)
            copies &= every
            recall, of_copies = (len(found & known) / max(1, len(known)) for known in (every, copies))
            shown = f"{recall:.4f} | {of_copies:.4f} | {cpu_all:.1f} | {cpu_cells:.1f} | {cpu_all / cpu_cells:.1f}"
            print(f"| {size:,} | {len(every):,} | {probes} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
