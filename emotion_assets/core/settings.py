"""Base of the settings that are read from the environment, by the pipeline and by the service."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, get_args

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from emotion_assets.core.errors import InvalidSettingError
from emotion_assets.core.layout import DataPaths
from emotion_assets.core.remote import is_remote

AbsolutePath = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]


class EmotionSettings(BaseSettings):
    """Settings with the prefix `EMOTION_`, validated together when they are read."""

    model_config = SettingsConfigDict(env_prefix="EMOTION_", env_ignore_empty=True, frozen=True, extra="ignore")

    copy_name: ClassVar[str] = "pipeline"
    """The service has a copy of its own: it must not see what a step has not committed yet."""
    data_dir: AbsolutePath = Field(
        default=Path("data"), description="Root of all data: a folder, or an address in object storage."
    )
    remote_root: str = Field(default="", description="Set by a data root in object storage.")
    cache_dir: AbsolutePath = Field(
        default_factory=lambda: Path.home() / ".cache" / "emotion_assets",
        description="Where the local copy of a data root in object storage is kept.",
    )

    @model_validator(mode="before")
    @classmethod
    def _split_remote(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Let an address such as `s3://bucket/path` stand for its local copy."""
        root = str(values.get("data_dir", ""))
        if not is_remote(root):
            return values
        url = root.rstrip("/")
        cache_dir = Path(
            values.get("cache_dir") or cls.model_fields["cache_dir"].get_default(call_default_factory=True)
        )
        copy = cache_dir / hashlib.sha256(url.encode()).hexdigest()[:12] / cls.copy_name
        return values | {"remote_root": url, "data_dir": copy}

    @classmethod
    def load(cls) -> Self:
        """Read the settings from the environment.

        Raises:
            InvalidSettingError: some are invalid; the message has a line for each, without the values of secrets.
        """
        try:
            return cls()
        except ValidationError as error:
            lines = [cls._describe(str(each["loc"][0]), each["input"], each["msg"]) for each in error.errors()]
        raise InvalidSettingError("\n".join(lines))

    @classmethod
    def _describe(cls, name: str, value: object, problem: str) -> str:
        annotation = cls.model_fields[name].annotation
        is_secret = annotation is SecretStr or SecretStr in get_args(annotation)
        shown = "" if is_secret else f" is {value!r}"
        return f"EMOTION_{name.upper()}{shown}: {problem}. Correct it or unset it."

    @property
    def paths(self) -> DataPaths:
        """The folders below the data root, or below its local copy."""
        return DataPaths(self.data_dir, self.remote_root)
