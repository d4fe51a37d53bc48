"""What do known corruptions of the images cost our network, and what the student project's?

Usage: python -m benchmarks.robustness BUNDLE_DIR BASELINE_WEIGHTS SPLITS_DIR FACES_DIR [--faces 1000]

BUNDLE_DIR is a model trained on SPLITS_DIR's train split, BASELINE_WEIGHTS what `benchmarks.training --kept` wrote after
training the other network on the same images. Both are asked for the same images of FACES_DIR, none of them a
near-copy of a training image, whole and under each of `benchmarks.corruptions`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.accuracy_over_http import copies_of_training
from benchmarks.corruptions import CORRUPTIONS, WITHOUT_FACE, corrupted
from emotion_assets.core.classes import EMOTIONS, emotion_from_folder
from emotion_assets.core.classifier import Classifier
from emotion_assets.core.images import Pixels, decode_image
from emotion_assets.steps.evaluation.baseline import BaselineNet


def baseline_answers(network: BaselineNet, pixels: Pixels) -> np.ndarray:
    with torch.inference_mode():
        parts = [network(part).argmax(dim=1) for part in torch.split(torch.from_numpy(pixels), 512)]
    return torch.cat(parts).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle_dir", type=Path)
    parser.add_argument("baseline_weights", type=Path)
    parser.add_argument("splits_dir", type=Path)
    parser.add_argument("faces_dir", type=Path)
    parser.add_argument("--faces", type=int, default=1000)
    options = parser.parse_args()
    paths = [path for path in sorted(options.faces_dir.rglob("*.jpg")) if emotion_from_folder(path.parent.name)]
    is_copy = copies_of_training(paths, options.splits_dir)
    fresh = [path for path, copy in zip(paths, is_copy, strict=True) if not copy]
    order = np.random.default_rng(0).permutation(len(fresh))[: options.faces]
    chosen = [fresh[number] for number in order]
    truth = np.array([EMOTIONS.index(emotion_from_folder(path.parent.name) or "") for path in chosen])
    network = BaselineNet()
    network.load_state_dict(load_file(options.baseline_weights))
    classifier = Classifier(options.bundle_dir, 2)

    def accuracies(pixels: Pixels) -> np.ndarray:
        answers = (classifier.predict(pixels).class_indices, baseline_answers(network.eval(), pixels))
        return np.array([(answer == truth).mean() for answer in answers])

    whole = accuracies(np.stack([decode_image(path.read_bytes()).pixels for path in chosen]))
    print(f"{len(chosen):,} faces; accuracy without corruption: ours {whole[0]:.3f}, the student's {whole[1]:.3f}\n")
    print("| corruption | ours loses, points | the student's loses | ours keeps | the student's keeps |")
    print("|---|---|---|---|---|")
    losses = []
    for name in CORRUPTIONS:
        if name in WITHOUT_FACE:
            continue
        under = accuracies(corrupted(chosen, name))
        losses.append(100 * (whole - under))
        print(f"| {name} | {losses[-1][0]:.1f} | {losses[-1][1]:.1f} | {under[0]:.3f} | {under[1]:.3f} |", flush=True)
    mean = np.mean(losses, axis=0)
    # A network near chance has little left to lose, so the fraction of what it had above chance is given, too.
    chance = np.bincount(truth).max() / len(truth)
    fractions = mean / (100 * (whole - chance))
    print(f"\nMean loss over {len(losses)}, points: ours {mean[0]:.1f}, the student's {mean[1]:.1f}.")
    print(f"Of what each has above the commonest class ({chance:.3f}): {fractions[0]:.0%} and {fractions[1]:.0%}.")


if __name__ == "__main__":
    main()
