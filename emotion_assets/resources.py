"""The places: where data is read and left. The only module on the Dagster side that reads our settings."""

import math
import os
import subprocess
from pathlib import Path
from typing import Any, Self

import dagster as dg
import yaml

from emotion_assets.core import layout
from emotion_assets.core.errors import InvalidSettingError
from emotion_assets.core.files import source_version
from emotion_assets.steps.drift.alerts import AlertTargets
from emotion_assets.steps.registry.registry import Registry

_PACKAGE_DIR = Path(__file__).parent


class DataPaths(dg.ConfigurableResource):  # type: ignore[type-arg]  # its parameter breaks inference in Dagster
    """Every folder of the pipeline, below one root. Folders are made when something is written to them."""

    data_dir: str
    """The root, absolute."""
    reports_url: str
    """Where `make ui` serves the reports folder, so that a browser can open what an asset links to."""

    @classmethod
    def from_environment(cls) -> Self:
        """Read `EMOTION_DATA_DIR` (default `data`) and `EMOTION_REPORTS_URL`."""
        return cls(
            data_dir=str(Path(os.environ.get("EMOTION_DATA_DIR", "data")).absolute()),
            reports_url=os.environ.get("EMOTION_REPORTS_URL", "http://localhost:3002").rstrip("/"),
        )

    @property
    def root(self) -> Path:
        """The root as a path."""
        return Path(self.data_dir)

    @property
    def raw_dir(self) -> Path:
        """Labelled images, the user's own."""
        return self.root / "raw"

    @property
    def external_dir(self) -> Path:
        """Images of another source, the user's own."""
        return self.root / "unlabelled"

    @property
    def catalogue_dir(self) -> Path:
        """One row for each file seen."""
        return self.root / "catalogue"

    @property
    def splits_dir(self) -> Path:
        """Pixels and class indices of the three splits, and the ledger."""
        return self.root / "splits"

    @property
    def models_dir(self) -> Path:
        """Bundles and `champion.json`."""
        return self.root / layout.MODELS

    @property
    def predictions_dir(self) -> Path:
        """What the service logged."""
        return self.root / layout.PREDICTIONS

    @property
    def feedback_dir(self) -> Path:
        """Labels that people gave to predictions."""
        return self.root / layout.FEEDBACK

    @property
    def reports_dir(self) -> Path:
        """HTML, JSON and images for people."""
        return self.root / "reports"

    @property
    def registry(self) -> Registry:
        """The models with the pointer to the accepted one."""
        return Registry(self.models_dir)

    def link(self, path: Path) -> str:
        """Return the address under which `make ui` serves a file of the reports folder."""
        return f"{self.reports_url}/{path.relative_to(self.reports_dir).as_posix()}"


class Alerts(dg.ConfigurableResource):  # type: ignore[type-arg]  # its parameter breaks inference in Dagster
    """Whom to tell of an incident, beside the log."""

    webhook_url: str = ""
    email_to: str = ""
    smtp_server: str = ""

    @classmethod
    def from_environment(cls) -> Self:
        """Read `EMOTION_ALERT_WEBHOOK`, `EMOTION_ALERT_EMAIL` and `EMOTION_ALERT_SMTP`."""
        return cls(
            webhook_url=os.environ.get("EMOTION_ALERT_WEBHOOK", ""),
            email_to=os.environ.get("EMOTION_ALERT_EMAIL", ""),
            smtp_server=os.environ.get("EMOTION_ALERT_SMTP", ""),
        )

    def targets(self) -> AlertTargets:
        """Return them for the step that sends."""
        return AlertTargets(self.webhook_url, self.email_to, self.smtp_server)


class Automation(dg.ConfigurableResource):  # type: ignore[type-arg]  # its parameter breaks inference in Dagster
    """How sensors wait, and what they give to the runs that they start."""

    quiet_seconds: float = 60
    """A folder counts as quiet when it has looked the same for so long: half-copied deliveries wait."""
    run_config_path: str = ""
    """A file with the run configuration; empty takes the defaults."""

    @classmethod
    def from_environment(cls) -> Self:
        """Read `EMOTION_QUIET_SECONDS` (default 60) and `EMOTION_RUN_CONFIG` (default none).

        Raises:
            InvalidSettingError: the first is not a number of seconds.
        """
        text = os.environ.get("EMOTION_QUIET_SECONDS", "60")
        try:
            quiet_seconds = float(text)
        except ValueError:
            quiet_seconds = math.nan
        if not 0 <= quiet_seconds < math.inf:
            raise InvalidSettingError(f"EMOTION_QUIET_SECONDS is {text!r}. Set a number of seconds, or unset it.")
        return cls(quiet_seconds=quiet_seconds, run_config_path=os.environ.get("EMOTION_RUN_CONFIG", ""))

    @property
    def interval_seconds(self) -> int:
        """How often a sensor looks: no more seldom than a minute, no more often than every five seconds."""
        return max(5, min(60, int(self.quiet_seconds)))

    def run_config(self) -> dict[str, Any]:
        """Return the run configuration for the runs that sensors start.

        Raises:
            dg.Failure: the file cannot be read, or is not a mapping.
        """
        if not self.run_config_path:
            return {}
        try:
            loaded = yaml.safe_load(Path(self.run_config_path).read_text())
        except (OSError, yaml.YAMLError) as error:
            raise dg.Failure(
                f"EMOTION_RUN_CONFIG names {self.run_config_path}, which is unreadable: {error}"
            ) from error
        if not isinstance(loaded, dict):
            raise dg.Failure(f"{self.run_config_path} holds no mapping. Begin it with `ops:`, as in the launchpad.")
        return loaded


def code_version(room: str) -> str:
    """Return what changes with the sources of a room of `steps` or of the core that it stands on."""
    return source_version(_PACKAGE_DIR / "core", _PACKAGE_DIR / "steps" / room)


def git_commit() -> str:
    """Return the commit of the checkout, with `-dirty` behind it if files were changed; `unknown` outside git."""
    command = ["git", "-C", str(_PACKAGE_DIR), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603 -- fixed words
    except (OSError, subprocess.SubprocessError):
        return "unknown"
