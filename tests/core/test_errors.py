from __future__ import annotations

from emotion_assets.core import errors
from emotion_assets.core.errors import EmotionError, ImageError, InvalidSettingError


def test_every_image_error_has_its_own_code() -> None:
    """Programs tell rejections apart by their code."""
    kinds = [kind for kind in ImageError.__subclasses__() if kind.__module__ == errors.__name__]

    assert {kind.code for kind in kinds} == {
        "empty_image",
        "image_too_large",
        "unsupported_format",
        "unreadable_image",
    }
    assert len(kinds) == 4
    assert issubclass(ImageError, EmotionError)


def test_invalid_setting_is_a_value_error() -> None:
    """Libraries that validate settings expect one."""
    assert issubclass(InvalidSettingError, ValueError)
