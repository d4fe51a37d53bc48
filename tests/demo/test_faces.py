from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.images import decode_image
from emotion_assets.core.layout import DataPaths
from emotion_assets.demo.faces import draw_dataset, draw_face


def mean_brightness(**options: bool) -> float:
    faces = [decode_image(draw_face("fear", np.random.default_rng(seed), **options)).pixels for seed in range(10)]
    return float(np.mean(faces))


def test_draw_face_depends_on_the_seed_alone() -> None:
    first, again, other = (draw_face("sad", np.random.default_rng(seed)) for seed in (1, 1, 2))

    assert first == again != other
    assert decode_image(first).width_px == 96


def test_dim_faces_are_darker() -> None:
    assert mean_brightness(is_dim=True) < 0.6 * mean_brightness()


@pytest.mark.parametrize("difficulty", [0.0, 1.0])
def test_draw_dataset_keeps_existing_files(tmp_path: Path, difficulty: float) -> None:
    """A second call with the same seed writes nothing."""
    paths = DataPaths(tmp_path)
    assert draw_dataset(paths, num_per_class=2, seed=0, difficulty=difficulty) == 10
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jpg")}

    draw_dataset(paths, num_per_class=2, seed=0, difficulty=difficulty)

    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jpg")} == before
    assert {path.parents[1].name for path in before if "raw" in path.parts} == {e.capitalize() for e in EMOTIONS}


def test_difficult_faces_differ_less_between_classes() -> None:
    """Subtle and mixed expressions move the class means towards each other."""

    def spread(difficulty: float) -> float:
        means = []
        for emotion in EMOTIONS:
            faces = (draw_face(emotion, np.random.default_rng(seed), difficulty=difficulty) for seed in range(40))
            means.append(np.mean([decode_image(face).pixels for face in faces], axis=0))
        return float(np.std(means, axis=0).mean())

    assert spread(1.0) < 0.8 * spread(0.0)
