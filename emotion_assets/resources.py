"""What the assets and sensors share: the pipeline's settings, and the versions of the code."""

import subprocess
from pathlib import Path
from typing import Annotated, Any

import dagster as dg
import yaml
from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from emotion_assets.core.files import source_version
from emotion_assets.core.settings import AbsolutePath, EmotionSettings

_PACKAGE_DIR = Path(__file__).parent


def _split(value: object) -> object:
    return value.split() if isinstance(value, str) else value


class PipelineSettings(EmotionSettings):
    """Settings of the pipeline, a resource of the code location."""

    reports_url: str = Field("http://localhost:3002", description="Where `make ui` serves the reports folder.")
    quiet_seconds: float = Field(
        60, ge=0, allow_inf_nan=False, description="Sensors wait until `raw/` has not changed for this long."
    )
    run_config: AbsolutePath | None = Field(None, description="YAML run configuration of the runs that sensors start.")
    alert_urls: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split)] = Field(
        (), description="Apprise addresses that get incidents, separated by spaces."
    )
    mlflow_model: str = Field(
        "", description="Name under which MLflow's registry gets each accepted version; none if empty."
    )

    def link(self, path: Path) -> str:
        """Return the address under which `make ui` serves a file of the reports folder."""
        return f"{self.reports_url.rstrip('/')}/{path.relative_to(self.paths.reports).as_posix()}"

    @property
    def sensor_interval_seconds(self) -> int:
        """How often a sensor polls: at least once a minute, at most every five seconds."""
        return max(5, min(60, int(self.quiet_seconds)))

    def load_run_config(self) -> dict[str, Any]:
        """Return the run configuration of the runs that sensors start.

        Raises:
            dg.Failure: the file cannot be read, or is not a mapping.
        """
        if self.run_config is None:
            return {}
        try:
            loaded = yaml.safe_load(self.run_config.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise dg.Failure(f"EMOTION_RUN_CONFIG names {self.run_config}, which cannot be read: {error}") from error
        if not isinstance(loaded, dict):
            raise dg.Failure(f"{self.run_config} is not a mapping. Begin it with `ops:`, as in the launchpad.")
        return loaded


Settings = dg.ResourceParam[PipelineSettings]


def code_version(*packages: str) -> str:
    """Return a version that changes with the sources of the core and of these packages of `steps`."""
    return source_version(_PACKAGE_DIR / "core", *(_PACKAGE_DIR / "steps" / name for name in packages))


def git_commit() -> str:
    """Return the commit of the checkout, with `-dirty` appended if files were changed; `unknown` outside git."""
    command = ["git", "-C", str(_PACKAGE_DIR), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603 -- fixed words
    except (OSError, subprocess.SubprocessError):
        return "unknown"
