"""Errors of the pipeline and the service that are raised on purpose."""

from __future__ import annotations

from typing import ClassVar


class EmotionError(Exception):
    """Base class; the message names the thing, the value and the remedy."""


class ImageError(EmotionError):
    """An image is rejected. Programs may rely on `code`; texts may change."""

    code: ClassVar[str] = "unreadable_image"


class EmptyImageError(ImageError):
    """The image has no bytes."""

    code = "empty_image"


class ImageTooLargeError(ImageError):
    """The file has too many bytes, or its header announces too many pixels."""

    code = "image_too_large"


class UnsupportedFormatError(ImageError):
    """The content is not in a supported format, whatever its name says."""

    code = "unsupported_format"


class UnreadableImageError(ImageError):
    """The format is supported, but the content is damaged, truncated or meaningless."""


class BundleMismatchError(EmotionError):
    """A model bundle is incomplete, altered, or has another schema."""


class MissingModelError(EmotionError):
    """No model has been accepted yet."""


class InvalidSettingError(EmotionError, ValueError):
    """An environment variable has no usable value; the message names it, and its value unless that is secret."""


class ChangedElsewhereError(EmotionError):
    """Another host has changed the same files of a data root in object storage; the step is to be repeated."""


class UnusableDataError(EmotionError):
    """Data or options cannot be used: too few images, damaged splits, options that contradict each other.

    The service has further errors for requests, which carry an HTTP status.
    """
