from __future__ import annotations

import numpy as np
import pytest

from emotion_assets.core.errors import ImageError
from emotion_assets.core.images import decode_image
from tests.malformed_images import MalformedImage, gradient, outliers, square

IMAGE_LOG = list(outliers())
REFERENCE = square(gradient())


def test_the_suite_is_large_and_has_no_two_alike() -> None:
    """At least 150 kinds, each under its own name."""
    assert len({image.name for image in IMAGE_LOG}) == len(IMAGE_LOG) >= 150


@pytest.mark.parametrize("image", IMAGE_LOG, ids=lambda image: image.name)
def test_odd_image_is_kept_right_or_rejected_right(image: MalformedImage) -> None:
    """A valid image has the right pixels, any other the right code."""
    try:
        pixels = decode_image(image.content).pixels
    except ImageError as error:
        assert error.code == image.code, error
        assert len(str(error)) > 20
    else:
        assert image.code is None, "accepted"
        assert image.tolerance is not None
        reference = REFERENCE if image.reference is None else image.reference
        assert np.abs(pixels.astype(int) - reference.astype(int)).mean() <= image.tolerance
