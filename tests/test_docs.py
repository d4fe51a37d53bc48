"""The documentation: the site, what it says of errors, and the commands of the tutorial."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from emotion_assets.core import errors
from emotion_assets.definitions import defs
from emotion_assets.steps.ingest.scan import SkipCode

CHECKOUT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PACKAGES = ("emotion_assets", "emotion_service")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a broken link, anchor or reference fails."""
    folder = tmp_path_factory.mktemp("site")
    command = [BIN / "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_public_function_has_its_place(site: Path) -> None:
    """By the inventory that other sites link with."""
    inventory = zlib.decompress((site / "objects.inv").read_bytes().split(b"zlib.\n", 1)[1]).decode()
    documented = {line.split(" ", 1)[0] for line in inventory.splitlines()}

    assert sorted(set(public_names()) - documented) == []


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    """No script, style, font or image of another host."""
    loaded = re.compile(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="https?://[^"]+"')
    found = [match for page in site.rglob("*.html") for match in loaded.findall(page.read_text())]

    assert [match for match in found if 'rel="canonical"' not in match] == []


def test_every_error_has_its_entry() -> None:
    """Every code that a client sees, and every class of error that is raised."""
    text = (CHECKOUT / "docs" / "troubleshooting.md").read_text()
    codes = {*SkipCode, *(each.code for each in vars(errors).values() if hasattr(each, "code"))} | set(request_codes())
    missing = {code for code in codes if f"`{code}`" not in text}
    missing |= {name for name in raised_classes() if f"`{name}`" not in text}

    assert missing == set()


def test_all_jobs_and_automation_are_listed() -> None:
    """By name, in the reference."""
    text = (CHECKOUT / "docs" / "reference.md").read_text()
    repository = defs.get_repository_def()
    jobs = {job.name for job in repository.get_all_jobs() if not job.name.startswith("__")}
    names = jobs | {each.name for each in (*repository.schedule_defs, *repository.sensor_defs)}

    assert {name for name in names if f"`{name}`" not in text} == set()


@pytest.mark.tutorial
@pytest.mark.timeout(1800)
def test_the_tutorial_runs_as_written(tmp_path: Path) -> None:
    """In a copy of the checkout, with the packages that are installed already."""
    checkout = tmp_path / "checkout"
    shutil.copytree(CHECKOUT, checkout, ignore=own_files)
    (checkout / ".venv").symlink_to(CHECKOUT / ".venv")
    script = "set -euo pipefail\ntrap 'kill %1 2>/dev/null || true' EXIT\n" + "\n".join(tutorial_commands())
    # Not to the tests' own stores, and make sees the folder's own targets.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("EMOTION_", "BENTOML_", "DAGSTER_", "MAKE", "MFLAGS"))
    }
    environment["PYTHONPATH"] = str(checkout)
    done = subprocess.run(
        ["bash", "-c", script], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert '"emotion"' in done.stdout
    assert "drifted" in done.stdout
    assert "rejected" in done.stdout
    assert not (checkout / "data" / "demo").exists()


def own_files(folder: str, names: list[str]) -> set[str]:
    """Name what a fresh clone does not have."""
    is_root = Path(folder) == CHECKOUT
    return {
        name for name in names if name == "__pycache__" or (is_root and (name[0] == "." or name in ("build", "data")))
    }


def tutorial_commands() -> list[str]:
    text = (CHECKOUT / "docs" / "tutorial.md").read_text()
    return re.findall(r"```bash\n(.*?)```", text, re.DOTALL)


def sources() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((CHECKOUT / package).rglob("*.py")):
            module = ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__")
            yield module, ast.parse(path.read_text())


def public_names() -> Iterator[str]:
    for module, tree in sources():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name[0] != "_":
                yield f"{module}.{node.name}"


def raised_classes() -> set[str]:
    calls = (node.exc for _, tree in sources() for node in ast.walk(tree) if isinstance(node, ast.Raise))
    names = {call.func.id for call in calls if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)}
    # Their codes are listed one by one; pydantic's become an InvalidSettingError.
    return {name for name in names if name[0].isupper()} - {"RequestError", "PydanticCustomError"}


def request_codes() -> Iterator[str]:
    for _, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "RequestError":
                yield from (each.value for each in node.args[1:2] if isinstance(each, ast.Constant))
