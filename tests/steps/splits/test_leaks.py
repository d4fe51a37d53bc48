from __future__ import annotations

import numpy as np

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.images import decode_image
from emotion_assets.demo.faces import draw_face
from emotion_assets.steps.splits.leaks import leaking_pairs
from emotion_assets.steps.splits.splits import Split


def test_leaking_pairs_finds_a_planted_leak() -> None:
    """The check reports a mirrored copy across splits, and nothing else."""
    rng = np.random.default_rng(4)
    pixels = np.stack([decode_image(draw_face(EMOTIONS[i % 5], rng)).pixels for i in range(12)])
    names = tuple(f"{i:064}" for i in range(12))
    train = Split(pixels[:10], np.zeros(10, dtype=np.int64), names[:10])
    clean = Split(pixels[10:], np.zeros(2, dtype=np.int64), names[10:])
    leaky = Split(pixels[3:4, :, ::-1], np.zeros(1, dtype=np.int64), names[11:])

    assert leaking_pairs([train, clean]) == []
    assert leaking_pairs([train, leaky]) == [(names[3], names[11])]
