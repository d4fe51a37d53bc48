"""Gather the pages of the documentation site: a hook of MkDocs.

The site has the layout of the repository, so that every relative link works there and in the repository. The pages of
`api/` are generated: one for each package, and one for the settings.
"""

from __future__ import annotations

import importlib
import pkgutil
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from mkdocs.config.defaults import MkDocsConfig
from pydantic_settings import BaseSettings

import emotion_assets
import emotion_service
from emotion_assets.resources import PipelineSettings
from emotion_service.settings import Settings

PAGES = ("*.md", "docs/**/*", "benchmarks/*.md", "data/README.md", "examples/*.yaml", "examples/*.ipynb")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Copy and generate all pages below `build/docs`, and make that the site's folder."""
    root = Path(config.config_file_path).parent
    target = root / "build" / "docs"
    shutil.rmtree(target, ignore_errors=True)
    for path in sorted(path for pattern in PAGES for path in root.glob(pattern) if path.is_file()):
        copy = target / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    write_api(target / "api")
    config.docs_dir = str(target)
    return config


def write_api(folder: Path) -> None:
    """Write a page for each package, an index of them, and the table of settings."""
    folder.mkdir()
    lines = ["# Packages and modules", "", "| package | what it holds |", "|---|---|"]
    for package in (emotion_assets, emotion_service):
        for each in packages_below(package):
            modules = [module.name for module in pkgutil.iter_modules(each.__path__) if not module.ispkg]
            if not modules:
                continue
            page = [f"# {each.__name__}", "", *(f"::: {each.__name__}.{name}\n" for name in modules)]
            (folder / f"{each.__name__}.md").write_text("\n".join(page))
            names = ", ".join(f"`{name}`" for name in modules)
            lines.append(f"| [{each.__name__}]({each.__name__}.md) | {names} |")
    (folder / "index.md").write_text("\n".join(lines) + "\n")
    tables = [describe_settings("Pipeline", PipelineSettings), describe_settings("Service", Settings)]
    (folder / "settings.md").write_text("# Settings\n\nEnvironment variables; an invalid one stops the program.\n\n")
    with (folder / "settings.md").open("a") as file:
        file.write("\n".join(tables))


def packages_below(package: ModuleType) -> Iterator[ModuleType]:
    """Yield a package and all packages in it."""
    yield package
    for each in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if each.ispkg:
            yield from packages_below(importlib.import_module(each.name))


def describe_settings(title: str, settings: type[BaseSettings]) -> str:
    """Return a table of the environment variables that a class reads."""
    lines = [f"## {title}", "", "| variable | default | meaning |", "|---|---|---|"]
    for name, field in settings.model_fields.items():
        if name == "remote_root":  # set by the program itself
            continue
        value = int(field.default) if isinstance(field.default, bool) else field.default
        shown = f"`{value}`" if value or isinstance(value, int) else "none"
        default = "by the machine" if field.default_factory else shown
        lines.append(f"| `EMOTION_{name.upper()}` | {default} | {field.description or ''} |")
    return "\n".join(lines) + "\n"
