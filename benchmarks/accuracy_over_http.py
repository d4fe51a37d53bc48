"""Score a running service on labelled faces, with and without near-duplicates of training images.

Usage: python -m benchmarks.accuracy_over_http FACES_DIR --url http://127.0.0.1:3001 --data-dir data
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

from benchmarks.labelled_faces import find_labelled, is_near_duplicate, read_pixels
from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.evaluation.scores import LabelledPredictions, compute_scores


def predict(client: httpx.Client, url: str, path: Path) -> list[float]:
    response = client.post(f"{url}/predict", content=path.read_bytes(), headers={"Content-Type": "image/jpeg"})
    response.raise_for_status()
    return [response.json()["probabilities"][emotion] for emotion in EMOTIONS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces_dir", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:3001")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    options = parser.parse_args()
    paths, class_indices = find_labelled(options.faces_dir)
    started = time.perf_counter()
    with httpx.Client(timeout=30) as client, ThreadPoolExecutor(4) as pool:
        version = client.get(f"{options.url}/model").json()["model_version"]
        rows = list(pool.map(lambda path: predict(client, options.url, path), paths))
    seconds = time.perf_counter() - started
    probabilities = np.array(rows, dtype=np.float32)
    is_clean = ~is_near_duplicate(read_pixels(paths), DataPaths(options.data_dir).splits)
    print(f"model {version}, {len(paths):,} faces in {seconds:.0f} s\n")
    print("| faces | accuracy | macro-F1 | log loss | calibration error |\n|---|---|---|---|---|")
    everything = np.ones(len(paths), dtype=bool)
    for name, chosen in (("all", everything), ("without near-duplicates of training images", is_clean)):
        scores = compute_scores(LabelledPredictions(version, probabilities[chosen], class_indices[chosen]))
        print(
            f"| {name} ({scores.num_images:,}) | {scores.accuracy:.4f} | {scores.macro_f1:.4f} "
            f"| {scores.log_loss:.4f} | {scores.calibration_error:.4f} |"
        )
    recalls = compute_scores(LabelledPredictions(version, probabilities, class_indices)).recall
    print("\nrecall: " + ", ".join(f"{emotion} {recalls[emotion]:.3f}" for emotion in EMOTIONS))


if __name__ == "__main__":
    main()
