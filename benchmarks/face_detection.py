"""Measure face detection, false detections, and the accuracy on detected faces.

Usage: python -m benchmarks.face_detection BUNDLE_DIR LABELLED_DIR PORTRAITS_DIR [--num 400]

Images with a labelled face are composed: a face from LABELLED_DIR, at a random position and size, on one of
scikit-learn's two sample photographs, which show no face. PORTRAITS_DIR has portraits with some background.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks.labelled_faces import find_labelled
from emotion_assets.core.classifier import Classifier
from emotion_assets.core.images import face_pixels
from emotion_service.face_detection import FaceDetector, crop_region, face_region
from emotion_service.schemas import FaceRegion

SCENE_PX = (640, 480)
SIDES_PX = (64, 96, 128, 192)

Item = TypeVar("Item")


def sample(items: Sequence[Item], num: int, rng: random.Random) -> list[Item]:
    return rng.sample(items, min(num, len(items)))


def scenes() -> list[Image.Image]:
    return [Image.fromarray(image).convert("L").resize(SCENE_PX) for image in load_sample_images().images]


def detection_rate(detector: FaceDetector, images: Sequence[Image.Image]) -> float:
    return float(np.mean([bool(detector.detect(image)) for image in images]))


def crop_largest(detector: FaceDetector, image: Image.Image) -> Image.Image | None:
    """Crop an image to its largest face; None if no face is detected."""
    faces = detector.detect(image)
    return crop_region(image, face_region(image, faces[0])) if faces else None


def random_corner(side: int, rng: random.Random) -> tuple[int, int]:
    left, top = (rng.randint(0, length - side) for length in SCENE_PX)
    return left, top


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle_dir", type=Path)
    parser.add_argument("labelled_dir", type=Path)
    parser.add_argument("portraits_dir", type=Path)
    parser.add_argument("--num", type=int, default=400)
    options = parser.parse_args()
    rng = random.Random(0)
    detector = FaceDetector()
    labelled = sample(list(zip(*find_labelled(options.labelled_dir), strict=True)), options.num, rng)
    faces = [Image.open(path).convert("L") for path, _ in labelled]
    portraits = sample(sorted(options.portraits_dir.rglob("*.jpg")), options.num, rng)
    print("| measure | value |\n|---|---|")
    measure_detection(detector, faces, [Image.open(path).convert("L") for path in portraits], rng)
    measure_accuracy(detector, Classifier(options.bundle_dir), faces, np.array([index for _, index in labelled]), rng)


def measure_detection(
    detector: FaceDetector, faces: list[Image.Image], portraits: list[Image.Image], rng: random.Random
) -> None:
    started = time.process_time()
    print(f"| detection rate, portraits of another source | {detection_rate(detector, portraits):.3f} |")
    print(f"| detection rate, tight crops | {detection_rate(detector, faces):.3f} |")
    milliseconds = 1000 * (time.process_time() - started) / (len(portraits) + len(faces))
    print(f"| CPU ms per image | {milliseconds:.0f} |")
    crops = []
    for scene in scenes():
        for _ in range(len(faces) // 2):
            side = rng.randint(100, 400)
            left, top = random_corner(side, rng)
            crops.append(scene.crop((left, top, left + side, top + side)))
    print(f"| false detections in crops of scenes without a face | {detection_rate(detector, crops):.3f} |")


def measure_accuracy(
    detector: FaceDetector,
    classifier: Classifier,
    faces: list[Image.Image],
    class_indices: np.ndarray,
    rng: random.Random,
) -> None:
    def correct(images: Sequence[Image.Image]) -> np.ndarray:
        predictions = classifier.predict(np.stack([face_pixels(image) for image in images]))
        return predictions.probabilities.argmax(axis=1) == class_indices

    whole = correct(faces)
    crops = [crop_largest(detector, face) for face in faces]
    found = np.array([crop is not None for crop in crops])
    cropped = correct([crop or face for crop, face in zip(crops, faces, strict=True)])
    print(f"| accuracy on detected faces, whole image | {whole[found].mean():.3f} |")
    print(f"| the same, cropped to the detected face | {cropped[found].mean():.3f} |")
    print(f"\n| face pasted into {SCENE_PX[0]}×{SCENE_PX[1]} | detected | accuracy, detected and cropped ", end="")
    print("| accuracy, same faces cropped by hand |\n|---|---|---|---|")
    backgrounds = scenes()
    for side in SIDES_PX:
        images, found = [], np.zeros(len(faces), dtype=bool)
        for number, face in enumerate(faces):
            scene = backgrounds[number % 2].copy()
            left, top = random_corner(side, rng)
            scene.paste(face.resize((side, side)), (left, top))
            detected = detector.detect(scene)
            found[number] = bool(detected) and is_inside(detected[0], left, top, side)
            images.append(crop_region(scene, face_region(scene, detected[0])) if found[number] else face)
        print(f"| {side} px | {found.mean():.3f} | {correct(images)[found].mean():.3f} | {whole[found].mean():.3f} |")


def is_inside(face: FaceRegion, left: int, top: int, side: int) -> bool:
    """Return whether the center of a detected face lies in the square where the face was pasted."""
    center_x = (face.left + face.right) / 2 * SCENE_PX[0]
    center_y = (face.top + face.bottom) / 2 * SCENE_PX[1]
    return left < center_x < left + side and top < center_y < top + side


if __name__ == "__main__":
    main()
