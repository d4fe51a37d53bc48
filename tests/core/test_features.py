from __future__ import annotations

import numpy as np

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.features import feature_columns, image_features
from emotion_assets.core.image_stats import STATISTICS, image_statistics


def test_image_features_are_rounded_statistics() -> None:
    """Plain floats that fit into JSON, in the order of the feature columns."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)

    features = image_features(pixels)

    assert tuple(features) == STATISTICS == tuple(feature_columns(EMOTIONS)[: len(STATISTICS)])
    for name, value in features.items():
        assert isinstance(value, float)
        assert value == round(float(image_statistics(pixels[None])[name][0]), 6)
