from __future__ import annotations

from pathlib import Path

import numpy as np

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.images import decode_image
from emotion_assets.demo.faces import draw_dataset, draw_face


def test_draw_face_is_a_image_that_depends_on_the_seed_alone() -> None:
    """Same generator, same face; another generator, another face."""
    first, again, other = (draw_face("sad", np.random.default_rng(seed)) for seed in (1, 1, 2))

    assert first == again != other
    assert decode_image(first).width_px == 96


def test_dim_faces_are_darker() -> None:
    """The other source differs in what drift detection should see."""
    bright = np.mean([decode_image(draw_face("fear", np.random.default_rng(i))).pixels.mean() for i in range(10)])
    dim = np.mean(
        [decode_image(draw_face("fear", np.random.default_rng(i), dim=True)).pixels.mean() for i in range(10)]
    )

    assert dim < 0.6 * bright


def test_draw_delivery_keeps_what_is_there(tmp_path: Path) -> None:
    """A second delivery with the same seed writes nothing."""
    assert draw_dataset(tmp_path, num_per_emotion=2, seed=0) == 10
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jpg")}

    draw_dataset(tmp_path, num_per_emotion=2, seed=0)

    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jpg")} == before
    assert {path.parent.parent.name for path in before if "raw" in path.parts} == {e.capitalize() for e in EMOTIONS}
