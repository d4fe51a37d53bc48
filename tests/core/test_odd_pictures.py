from __future__ import annotations

import numpy as np
import pytest

from emotion_assets.core.errors import PictureError
from emotion_assets.core.images import decode_picture
from tests.odd_pictures import OddPicture, gradient, odd_pictures, square

PICTURES = list(odd_pictures())
REFERENCE = square(gradient())


def test_the_suite_is_large_and_has_no_two_alike() -> None:
    """At least 150 kinds, each under its own name."""
    assert len({picture.name for picture in PICTURES}) == len(PICTURES) >= 150


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_odd_picture_is_kept_right_or_refused_right(picture: OddPicture) -> None:
    """A valid picture has the right pixels, any other the right code."""
    try:
        pixels = decode_picture(picture.content).pixels
    except PictureError as error:
        assert error.code == picture.code, error
        assert len(str(error)) > 20
    else:
        assert picture.code is None, "accepted"
        assert picture.tolerance is not None
        reference = REFERENCE if picture.reference is None else picture.reference
        assert np.abs(pixels.astype(int) - reference.astype(int)).mean() <= picture.tolerance
