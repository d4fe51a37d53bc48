"""Measure what known corruptions cost our model and the baseline CNN in accuracy.

Usage: python -m benchmarks.robustness BUNDLE_DIR BASELINE_WEIGHTS SPLITS_DIR FACES_DIR [--faces 1000]

BUNDLE_DIR is a model trained on SPLITS_DIR's train split, BASELINE_WEIGHTS the file that `benchmarks.training --output`
wrote after training the baseline CNN on the same images. Both predict the same images of FACES_DIR, none of them a
near-duplicate of a training image, without a corruption and under each of `benchmarks.corruptions`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.corruptions import CORRUPTIONS, WITHOUT_FACE, corrupt_images
from benchmarks.labelled_faces import find_labelled, is_near_duplicate, read_pixels
from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.classifier import Classifier
from emotion_assets.core.images import Pixels
from emotion_assets.steps.evaluation.baseline import BaselineNet


def predict_baseline(network: BaselineNet, pixels: Pixels) -> np.ndarray:
    with torch.inference_mode():
        batches = [network(batch).argmax(dim=1) for batch in torch.split(torch.from_numpy(pixels), 512)]
    return torch.cat(batches).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle_dir", type=Path)
    parser.add_argument("baseline_weights", type=Path)
    parser.add_argument("splits_dir", type=Path)
    parser.add_argument("faces_dir", type=Path)
    parser.add_argument("--faces", type=int, default=1000)
    options = parser.parse_args()
    paths, class_indices = find_labelled(options.faces_dir)
    pixels = read_pixels(paths)
    new = np.flatnonzero(~is_near_duplicate(pixels, options.splits_dir))
    chosen = new[np.random.default_rng(0).permutation(len(new))[: options.faces]]
    paths, class_indices = [paths[index] for index in chosen], class_indices[chosen]
    network = BaselineNet(len(EMOTIONS))
    network.load_state_dict(load_file(options.baseline_weights))
    network.eval()
    classifier = Classifier(options.bundle_dir, 2)

    def accuracies(images: Pixels) -> np.ndarray:
        predicted = (classifier.predict(images).probabilities.argmax(axis=1), predict_baseline(network, images))
        return np.array([(each == class_indices).mean() for each in predicted])

    clean = accuracies(pixels[chosen])
    print(f"{len(chosen):,} faces; accuracy without corruption: ours {clean[0]:.3f}, baseline CNN {clean[1]:.3f}\n")
    print("| corruption | loss of ours, points | loss of the baseline CNN | accuracy of ours | of the baseline CNN |")
    print("|---|---|---|---|---|")
    losses = []
    for name in CORRUPTIONS:
        if name in WITHOUT_FACE:
            continue
        corrupted = accuracies(corrupt_images(paths, name))
        losses.append(100 * (clean - corrupted))
        ours, baseline = losses[-1]
        print(f"| {name} | {ours:.1f} | {baseline:.1f} | {corrupted[0]:.3f} | {corrupted[1]:.3f} |", flush=True)
    mean = np.mean(losses, axis=0)
    # A network near chance has little left to lose, so the loss relative to what it had above chance is given, too.
    majority = np.bincount(class_indices).max() / len(class_indices)
    relative = mean / (100 * (clean - majority))
    print(f"\nMean loss over {len(losses)} corruptions, points: ours {mean[0]:.1f}, baseline CNN {mean[1]:.1f}.")
    print(f"Relative to the accuracy above the majority class ({majority:.3f}): {relative[0]:.0%}, {relative[1]:.0%}.")


if __name__ == "__main__":
    main()
