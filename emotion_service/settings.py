"""What the service reads from the environment, in one place; the README's table lists the same names."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from emotion_assets.core.errors import InvalidSettingError


@dataclass(frozen=True, slots=True)
class Settings:
    """The service's settings, checked when they are read."""

    data_dir: Path
    """Root of the pipeline's data; predictions are logged below it."""
    num_workers: int
    """Processes that answer; each uses one core."""
    max_concurrency: int
    """Requests that one worker handles at a time; more are answered 429."""
    timeout_seconds: float
    """A request that takes longer is answered 504."""
    follow_champion: bool = True
    """Whether to take the model that the pipeline on the same data root accepts, while running."""
    keep_images: bool = False
    """Whether the bytes of answered images are kept, for labelling."""
    keep_days: int = 30
    """After so many days a kept image is removed."""
    token: str = ""
    """What clients must send as a bearer token; empty lets everybody in."""
    rate_per_minute: float = 0
    """Requests a minute and client; 0 sets no limit."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may ask."""
    has_access_log: bool = False
    """Whether each request leaves a line of JSON."""
    traces_url: str = ""
    """Where an OpenTelemetry collector takes traces over HTTP (OTLP); empty sends none."""

    @classmethod
    def from_environment(cls) -> Self:
        """Read the settings.

        Raises:
            InvalidSettingError: a value is not a number or out of range; the message names the key and the value.
        """
        return cls(
            data_dir=Path(os.environ.get("EMOTION_DATA_DIR", "data")).absolute(),
            num_workers=_whole_number("EMOTION_WORKERS", os.cpu_count() or 1),
            max_concurrency=_whole_number("EMOTION_MAX_CONCURRENCY", 64),
            timeout_seconds=_number("EMOTION_TIMEOUT_SECONDS", 10, low=0.1),
            follow_champion=_is_on("EMOTION_FOLLOW_CHAMPION", default=True),
            keep_images=_is_on("EMOTION_KEEP_IMAGES", default=False),
            keep_days=_whole_number("EMOTION_KEEP_DAYS", 30, high=36_500),
            token=_token("EMOTION_TOKEN"),
            rate_per_minute=_number("EMOTION_RATE_PER_MINUTE", 0, low=0),
            cors_origins=tuple(filter(None, map(str.strip, os.environ.get("EMOTION_CORS_ORIGINS", "").split(",")))),
            has_access_log=_is_on("EMOTION_ACCESS_LOG", default=False),
            traces_url=os.environ.get("EMOTION_TRACES_URL", ""),
        )


def _number(key: str, default: float, *, low: float) -> float:
    text = os.environ.get(key)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError as error:
        raise InvalidSettingError(f"{key} is {text!r}, which is not a number. Set a number or unset it.") from error
    if not (value >= low and math.isfinite(value)):
        raise InvalidSettingError(f"{key} is {text!r}, but must be finite and at least {low:g}.")
    return value


def _whole_number(key: str, default: int, high: int = 1_000_000) -> int:
    value = _number(key, default, low=1)
    if value != int(value) or value > high:
        raise InvalidSettingError(f"{key} is {value!r}, but must be a whole number up to {high:,}.")
    return int(value)


def _token(key: str) -> str:
    text = os.environ.get(key, "")
    if not all("!" <= letter <= "~" for letter in text):
        # The value itself is a secret.
        raise InvalidSettingError(f"{key} has a space, a line's end or a letter beyond ASCII. Use letters and digits.")
    return text


def _is_on(key: str, *, default: bool) -> bool:
    text = os.environ.get(key, "1" if default else "0")
    if text not in ("0", "1"):
        raise InvalidSettingError(f"{key} is {text!r}, but must be 0 or 1.")
    return text == "1"
