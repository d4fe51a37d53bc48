"""The service's settings: environment variables that start with `EMOTION_`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode

from emotion_assets.core.settings import EmotionSettings
from emotion_service.memory import default_workers


def _split(value: Any) -> Any:
    # Browsers name an origin without a slash.
    return (
        tuple(part.strip().rstrip("/") for part in value.split(",") if part.strip())
        if isinstance(value, str)
        else value
    )


def _check_token(token: SecretStr) -> SecretStr:
    if not all("!" <= character <= "~" for character in token.get_secret_value()):
        raise PydanticCustomError("token", "The token should consist of printable ASCII characters without spaces")
    return token


def _check_address(address: SecretStr) -> SecretStr:
    if address and not address.get_secret_value().startswith(("http://", "https://")):
        raise PydanticCustomError("address", "The address should begin with http:// or https://")
    return address


class Settings(EmotionSettings):
    """Settings of the service, the same for all workers."""

    copy_name = "service"
    workers: int = Field(
        default_factory=default_workers,
        ge=1,
        le=1_000,
        description="Number of worker processes, by default one for each allowed processor, if the memory suffices.",
    )
    max_concurrency: int = Field(
        default=64, ge=1, le=100_000, description="Predictions that one worker runs at once; more get status 429."
    )
    timeout_seconds: float = Field(
        default=10, ge=0.1, le=86_400, description="Time limit for a request; after it the client gets status 504."
    )
    follow_champion: bool = Field(
        default=True, description="Whether a running service loads each newly accepted model of the data root."
    )
    store_images: bool = Field(default=False, description="Whether to store images for labelling.")
    image_retention_days: int = Field(
        default=30, ge=1, le=36_500, description="Days after which a stored image is deleted."
    )
    token: Annotated[SecretStr, AfterValidator(_check_token)] = Field(
        default=SecretStr(""), description="Bearer token that clients must send to predict and to label; none if empty."
    )
    rate_per_minute: float = Field(
        default=0,
        ge=0,
        allow_inf_nan=False,
        description="Requests per minute, client and worker, with bursts of a tenth of that; 0 sets no limit.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        default=(), description="Origins, separated by commas, whose pages may call the service from a browser."
    )
    access_log: bool = Field(default=False, description="Whether to log one line of JSON for each request.")
    traces_url: Annotated[SecretStr, AfterValidator(_check_address)] = Field(
        default=SecretStr(""), description="OTLP endpoint of an OpenTelemetry collector (HTTP); none if empty."
    )
