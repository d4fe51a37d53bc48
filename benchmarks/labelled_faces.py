"""Labelled images that benchmarks score on, and which of them are near-duplicates of training images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emotion_assets.core.classes import DEFAULT_CLASSES, EMOTIONS
from emotion_assets.core.images import Pixels, read_image
from emotion_assets.steps.ingest.near_duplicates import compute_descriptors, similar_pairs
from emotion_assets.steps.splits.splits import read_split


def find_labelled(folder: Path) -> tuple[list[Path], np.ndarray]:
    """Return JPEG and PNG files in folders named after emotions, sorted, and their class indices, int64 (image,)."""
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in {".jpg", ".png"}]
    labelled = [(path, DEFAULT_CLASSES.find(path.parent.name)) for path in files]
    pairs = [(path, EMOTIONS.index(emotion)) for path, emotion in labelled if emotion]
    return [path for path, _ in pairs], np.array([index for _, index in pairs], dtype=np.int64)


def read_pixels(paths: Sequence[Path]) -> Pixels:
    """Decode images, uint8 (image, 64, 64)."""
    return np.stack([read_image(path).pixels for path in paths])


def is_near_duplicate(pixels: Pixels, splits_dir: Path) -> np.ndarray:
    """Tell which images are near-duplicates of one in the train split, bool (image,)."""
    train = read_split(splits_dir, "train").pixels
    descriptors = np.concatenate([compute_descriptors(train), compute_descriptors(pixels)])
    is_train = np.arange(len(descriptors)) < len(train)
    pairs = similar_pairs(descriptors, is_train)
    crossing = pairs[is_train[pairs[:, 0]] & ~is_train[pairs[:, 1]]]
    return np.isin(np.arange(len(pixels)) + len(train), crossing[:, 1])
