"""Every error that a user of the pipeline or of the service can meet.

EmotionError
├── PictureError               a picture is refused; `code` is shared by the catalogue and the HTTP answer
│   ├── EmptyPictureError          empty_picture
│   ├── PictureTooLargeError       picture_too_large
│   ├── UnsupportedFormatError     unsupported_format
│   └── UnreadablePictureError     unreadable_picture
├── BundleMismatchError        a model's files are missing, altered or of another schema
├── MissingModelError          no model has been accepted yet
├── InvalidSettingError        a setting in the environment has no usable value
└── UnusableDataError          what is at hand does not allow what was asked: pictures, splits, choices of a run
"""

from __future__ import annotations

from typing import ClassVar


class EmotionError(Exception):
    """Base of all errors raised on purpose; the message names the thing, the value and the remedy."""


class PictureError(EmotionError):
    """A picture is refused. `code` is stable: programs may rely on it, texts may change."""

    code: ClassVar[str] = "unreadable_picture"


class EmptyPictureError(PictureError):
    """There is no picture: no bytes were given."""

    code = "empty_picture"


class PictureTooLargeError(PictureError):
    """The file has too many bytes, or its header announces too many pixels."""

    code = "picture_too_large"


class UnsupportedFormatError(PictureError):
    """The content is none of the formats that we read, whatever its name says."""

    code = "unsupported_format"


class UnreadablePictureError(PictureError):
    """The format is known, but the content is damaged, truncated or senseless."""

    code = "unreadable_picture"


class BundleMismatchError(EmotionError):
    """A model bundle is incomplete, altered, or written by another schema."""


class MissingModelError(EmotionError):
    """No model has been accepted yet."""


class InvalidSettingError(EmotionError, ValueError):
    """A setting in the environment has no usable value; the message names the key, and the value if it is no secret."""


class UnusableDataError(EmotionError):
    """What is at hand does not allow what was asked: too few pictures, damaged splits, choices that do not go together.

    The service has errors of its own beside these: those of a request, which carry an HTTP status.
    """
