"""Are faces found in images, nothing else, and answered as well as those that people cut out?

Usage: python -m benchmarks.face_finding BUNDLE_DIR LABELLED_DIR OTHER_DIR [--num 400]

Images with a labelled face are made: a face from LABELLED_DIR, at a random place and size, on a scene without
one (scikit-learn's two sample images). OTHER_DIR has portraits with some background.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from emotion_assets.core.classes import EMOTIONS, emotion_from_folder
from emotion_assets.core.classifier import Classifier
from emotion_assets.core.images import face_pixels
from emotion_service.face_detection import WHOLE, FaceDetector, cut, face_region

SCENE_PX = (640, 480)
SIDES_PX = (64, 96, 128, 192)


def sample(folder: Path, num: int, chance: random.Random) -> list[Path]:
    paths = sorted(path for path in folder.rglob("*.jpg") if path.is_file())
    return chance.sample(paths, min(num, len(paths)))


def scenes() -> list[Image.Image]:
    return [Image.fromarray(image).convert("L").resize(SCENE_PX) for image in load_sample_images().images]


def found_fraction(finder: FaceDetector, images: Sequence[Image.Image]) -> float:
    return float(np.mean([bool(finder.find(image)) for image in images]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle_dir", type=Path)
    parser.add_argument("labelled_dir", type=Path)
    parser.add_argument("other_dir", type=Path)
    parser.add_argument("--num", type=int, default=400)
    options = parser.parse_args()
    chance = random.Random(0)
    backgrounds = scenes()
    model, finder = Classifier(options.bundle_dir), FaceDetector()
    paths = sample(options.labelled_dir, options.num, chance)
    faces = [Image.open(path).convert("L") for path in paths]
    truth = np.array([EMOTIONS.index(emotion_from_folder(path.parent.name) or "") for path in paths])
    whole = model.predict(np.array([face_pixels(face) for face in faces])).class_indices == truth

    started = time.process_time()
    portraits = [Image.open(path).convert("L") for path in sample(options.other_dir, options.num, chance)]
    print(f"| portraits of another source, found | {found_fraction(finder, portraits):.3f} |")
    print(f"| tight crops, found | {found_fraction(finder, faces):.3f} |")
    print(f"| CPU ms an image | {1000 * (time.process_time() - started) / (len(portraits) + len(faces)):.0f} |")

    windows = []
    for scene in backgrounds:
        for _ in range(options.num // 2):
            side = chance.randint(100, 400)
            left, top = (chance.randint(0, length - side) for length in SCENE_PX)
            windows.append(scene.crop((left, top, left + side, top + side)))
    print(f"| parts of scenes without a face, found all the same | {found_fraction(finder, windows):.3f} |")

    again, is_found = [], []
    for face in faces:
        boxes = finder.find(face)
        is_found.append(bool(boxes))
        region = face_region(face, boxes[0]) if boxes else WHOLE
        again.append(face_pixels(cut(face, region)))
    found = np.array(is_found)
    right = model.predict(np.array(again)).class_indices == truth
    print(f"| accuracy on found crops, whole | {whole[found].mean():.3f} |")
    print(f"| the same, cut again where they do not fill the image | {right[found].mean():.3f} |")

    for side in SIDES_PX:
        num_found, rights, wholes = 0, [], []
        for number, face in enumerate(faces):
            scene = backgrounds[number % 2].copy()
            left, top = (chance.randint(0, length - side) for length in SCENE_PX)
            scene.paste(face.resize((side, side)), (left, top))
            boxes = finder.find(scene)
            if not boxes:
                continue
            center_x = (boxes[0].left + boxes[0].right) / 2 * SCENE_PX[0]
            center_y = (boxes[0].top + boxes[0].bottom) / 2 * SCENE_PX[1]
            if not (left < center_x < left + side and top < center_y < top + side):
                continue
            num_found += 1
            pixels = face_pixels(cut(scene, face_region(scene, boxes[0])))
            rights.append(int(model.predict(pixels[None]).class_indices[0]) == truth[number])
            wholes.append(whole[number])
        print(
            f"| a face of {side} px in {SCENE_PX[0]} × {SCENE_PX[1]}: found, accuracy, of the same cut by hand | "
            f"{num_found / len(faces):.3f}, {np.mean(rights):.3f}, {np.mean(wholes):.3f} |"
        )


if __name__ == "__main__":
    main()
