"""What the assets and sensors share: the pipeline's settings and data root, and the versions of the code."""

import contextlib
import functools
import subprocess
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import dagster as dg
import yaml
from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from emotion_assets.core.errors import ChangedElsewhereError
from emotion_assets.core.files import source_version
from emotion_assets.core.layout import COLLECTED_NAME, FEEDBACK_IMAGES, DataPaths
from emotion_assets.core.remote import RemoteRoot
from emotion_assets.core.settings import AbsolutePath, EmotionSettings

_PACKAGE_DIR = Path(__file__).parent
_IMAGES = "raw"
"""Read where it is; only images that were labelled through the service are added to it."""
_LISTED = frozenset(("external", "feedback", "predictions", _IMAGES))
"""Folders of a data root in object storage that people and services add to, without heads."""
_OWN_FILES = ("classes.yaml", "subjects.csv", "raw/subjects.csv")


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
        (), description="Apprise URLs that incidents are sent to, separated by spaces."
    )
    mlflow_model: str = Field("", description="Name under which MLflow registers each accepted version; none if empty.")

    @contextlib.contextmanager
    def opened(self, *reads: str, writes: tuple[str, ...] = ()) -> Iterator[DataPaths]:
        """Yield the data root for one step; sync the copy of a remote root before the step, and the root after it.

        Raises:
            dg.RetryRequested: another host has changed the same files meanwhile; the step starts again on them.
        """
        if not self.remote_root:
            yield self.paths
            return
        root = RemoteRoot(self.remote_root, self.data_dir)
        root.fetch_files(_OWN_FILES)
        for folder in dict.fromkeys((*reads, *writes)):
            if folder not in _LISTED:
                root.checkout(folder)
            elif folder != _IMAGES:
                root.fetch(folder)
        labelled = set()
        if _IMAGES in writes:
            labelled = root.fetch_names(_IMAGES, FEEDBACK_IMAGES)
            # The local list is ahead of the root's if a step failed before it uploaded the images.
            root.fetch_files([f"feedback/{COLLECTED_NAME}"])
        yield self.paths
        try:
            for folder in writes:
                if folder == _IMAGES:
                    root.add(_IMAGES, FEEDBACK_IMAGES, labelled)
                else:
                    (root.publish if folder in _LISTED else root.commit)(folder)
        except ChangedElsewhereError as error:
            raise dg.RetryRequested(max_retries=3, seconds_to_wait=1) from error

    def link(self, path: Path) -> str:
        """Return the address under which `make ui` serves a file of the reports folder."""
        return f"{self.reports_url.rstrip('/')}/{path.relative_to(self.paths.reports).as_posix()}"

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
            raise dg.Failure(f"EMOTION_RUN_CONFIG={self.run_config} cannot be read: {error}. Correct it.") from error
        if not isinstance(loaded, dict):
            raise dg.Failure(f"{self.run_config} is not a mapping. Begin it with `ops:`, as in the launchpad.")
        return loaded


class Engine(StrEnum):
    """Where a step computes."""

    local = "local"
    ray = "ray"


Settings = dg.ResourceParam[PipelineSettings]

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def uses_data(
    *reads: str, writes: tuple[str, ...] = ()
) -> Callable[[Callable[_Parameters, _Result]], Callable[_Parameters, _Result]]:
    """Declare which folders of the data root an asset, op or sensor with the resource `settings` reads and writes.

    They are only copied from and to a data root in object storage. A check that yields its result can only read.
    """

    def decorate(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
        @functools.wraps(function)
        def run(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
            settings = next(each for each in (*args, *kwargs.values()) if isinstance(each, PipelineSettings))
            with settings.opened(*reads, writes=writes):
                return function(*args, **kwargs)

        return run

    return decorate


def code_version(*packages: str) -> str:
    """Return a version that changes with the sources of the core and of these packages of `steps`.

    A bento also packs the service.
    """
    folders = [_PACKAGE_DIR / "core", *(_PACKAGE_DIR / "steps" / name for name in packages)]
    return source_version(*folders, *([_PACKAGE_DIR.parent / "emotion_service"] if "packing" in packages else []))


def git_commit() -> str:
    """Return the commit of the checkout, with `-dirty` appended if files were changed; `unknown` outside git."""
    command = ["git", "-C", str(_PACKAGE_DIR), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603 -- fixed words
    except (OSError, subprocess.SubprocessError):
        return "unknown"
