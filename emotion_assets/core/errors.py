"""Every error that a user of the pipeline or of the service can meet.

EmotionError
├── ImageError               an image is rejected; `code` is shared by the catalogue and the HTTP answer
│   ├── EmptyImageError          empty_image
│   ├── ImageTooLargeError       image_too_large
│   ├── UnsupportedFormatError     unsupported_format
│   └── UnreadableImageError     unreadable_image
├── BundleMismatchError        a model's files are missing, altered or of another schema
├── MissingModelError          no model has been accepted yet
├── InvalidSettingError        a setting in the environment has no usable value
└── UnusableDataError          what is at hand does not allow what was asked: images, splits, choices of a run
"""

from __future__ import annotations

from typing import ClassVar


class EmotionError(Exception):
    """Base of all errors raised on purpose; the message names the thing, the value and the remedy."""


class ImageError(EmotionError):
    """An image is rejected. `code` is stable: programs may rely on it, texts may change."""

    code: ClassVar[str] = "unreadable_image"


class EmptyImageError(ImageError):
    """There is not an image: no bytes were given."""

    code = "empty_image"


class ImageTooLargeError(ImageError):
    """The file has too many bytes, or its header announces too many pixels."""

    code = "image_too_large"


class UnsupportedFormatError(ImageError):
    """The content is none of the formats that we read, whatever its name says."""

    code = "unsupported_format"


class UnreadableImageError(ImageError):
    """The format is known, but the content is damaged, truncated or senseless."""

    code = "unreadable_image"


class BundleMismatchError(EmotionError):
    """A model bundle is incomplete, altered, or written by another schema."""


class MissingModelError(EmotionError):
    """No model has been accepted yet."""


class InvalidSettingError(EmotionError, ValueError):
    """A setting in the environment has no usable value; the message names the key, and the value if it is no secret."""


class UnusableDataError(EmotionError):
    """What is at hand does not allow what was asked: too few images, damaged splits, choices that do not go together.

    The service has errors of its own beside these: those of a request, which carry an HTTP status.
    """
