"""Send labelled faces to a running service and score its answers; also without copies of training images.

Usage: python -m benchmarks.accuracy_over_http FACES_DIR --url http://127.0.0.1:3001 --data-dir data
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

from emotion_assets.core.classes import EMOTIONS, emotion_from_folder
from emotion_assets.core.images import decode_image
from emotion_assets.steps.evaluation.scores import LabelledPredictions, score
from emotion_assets.steps.ingest.near_duplicates import compute_descriptors, similar_pairs
from emotion_assets.steps.splits.splits import read_split


def ask(client: httpx.Client, url: str, path: Path) -> list[float]:
    response = client.post(f"{url}/predict", content=path.read_bytes(), headers={"Content-Type": "image/jpeg"})
    response.raise_for_status()
    return [response.json()["probabilities"][emotion] for emotion in EMOTIONS]


def copies_of_training(paths: list[Path], splits_dir: Path) -> np.ndarray:
    """Which images are near-duplicates of one in the train split, bool (image,)."""
    known = read_split(splits_dir, "train").pixels
    fresh = np.stack([decode_image(path.read_bytes()).pixels for path in paths])
    descriptors = np.concatenate([compute_descriptors(known), compute_descriptors(fresh)])
    is_known = np.arange(len(descriptors)) < len(known)
    pairs = similar_pairs(descriptors, is_known)
    crossing = pairs[is_known[pairs[:, 0]] & ~is_known[pairs[:, 1]]]
    return np.isin(np.arange(len(fresh)) + len(known), crossing[:, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces_dir", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:3001")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    options = parser.parse_args()
    paths = [path for path in sorted(options.faces_dir.rglob("*.jpg")) if emotion_from_folder(path.parent.name)]
    truth = np.array([EMOTIONS.index(emotion_from_folder(path.parent.name) or "") for path in paths])
    started = time.perf_counter()
    with httpx.Client(timeout=30) as client, ThreadPoolExecutor(4) as pool:
        version = client.get(f"{options.url}/model").json()["model_version"]
        rows = list(pool.map(lambda path: ask(client, options.url, path), paths))
    seconds = time.perf_counter() - started
    answers = LabelledPredictions(version, np.array(rows, dtype=np.float32), truth)
    is_copy = copies_of_training(paths, options.data_dir / "splits")
    clean = LabelledPredictions(version, answers.probabilities[~is_copy], truth[~is_copy])
    print(f"model {version}, {len(paths):,} faces in {seconds:.0f} s\n")
    print("| faces | accuracy | macro-F1 | log loss | calibration error |\n|---|---|---|---|---|")
    for name, part in (("all", answers), ("without copies of training images", clean)):
        scores = score(part)
        print(
            f"| {name} ({scores.num_images:,}) | {scores.accuracy:.4f} | {scores.macro_f1:.4f} "
            f"| {scores.log_loss:.4f} | {scores.calibration_error:.4f} |"
        )
    recalls = score(answers).recall
    print("\nrecall: " + ", ".join(f"{emotion} {recalls[emotion]:.3f}" for emotion in EMOTIONS))


if __name__ == "__main__":
    main()
