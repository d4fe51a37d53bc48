"""Base of the settings that are read from the environment, by the pipeline and by the service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self, get_args

from pydantic import AfterValidator, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from emotion_assets.core.errors import InvalidSettingError
from emotion_assets.core.layout import DataPaths

AbsolutePath = Annotated[Path, AfterValidator(Path.absolute)]


class EmotionSettings(BaseSettings):
    """Settings with the prefix `EMOTION_`, validated together when they are read."""

    model_config = SettingsConfigDict(env_prefix="EMOTION_", frozen=True, extra="ignore")

    data_dir: AbsolutePath = Path("data")

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
        """The folders below the data root."""
        return DataPaths(self.data_dir)
