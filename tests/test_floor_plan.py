"""Who may import whom: arrows point down only."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
ROOMS = ("data", "training", "evaluation", "drift", "packing")
CORE_LIBRARIES = {"numpy", "PIL", "onnxruntime"}
SERVICE_LIBRARIES = CORE_LIBRARIES | {"bentoml", "starlette", "pydantic", "anyio", "packaging", "prometheus_client"}


def modules(folder: str) -> list[Path]:
    return sorted((CHECKOUT / folder).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield str(node.module)


def libraries(path: Path) -> set[str]:
    """The distributions outside the standard library and ourselves that a file imports."""
    tops = {name.partition(".")[0] for name in imported(path)}
    return tops - sys.stdlib_module_names - {"emotion_assets", "emotion_service"}


def own(path: Path) -> set[str]:
    return {name for name in imported(path) if name.startswith(("emotion_assets", "emotion_service"))}


@pytest.mark.parametrize("path", modules("emotion_assets/core"), ids=lambda path: path.name)
def test_core_imports_nothing_above_it(path: Path) -> None:
    """The core stands on numpy, Pillow and onnxruntime alone."""
    assert libraries(path) <= CORE_LIBRARIES
    assert all(name.startswith("emotion_assets.core") for name in own(path))


@pytest.mark.parametrize("path", modules("emotion_service"), ids=lambda path: path.name)
def test_service_imports_only_itself_and_the_core(path: Path) -> None:
    """The service knows neither steps nor assets, neither Dagster nor torch."""
    assert libraries(path) <= SERVICE_LIBRARIES
    assert all(name.startswith(("emotion_assets.core", "emotion_service")) for name in own(path))


@pytest.mark.parametrize("path", modules("emotion_assets/steps"), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_steps_import_only_earlier_rooms_and_no_dagster(path: Path) -> None:
    """A room of steps imports itself, rooms before it, and the core."""
    assert not libraries(path) & {"dagster", "dagster_webserver"}
    if path.parent.name in ROOMS:
        allowed = {f"emotion_assets.steps.{room}" for room in ROOMS[: ROOMS.index(path.parent.name) + 1]}
        for name in own(path):
            assert name.startswith("emotion_assets.core") or name.rpartition(".")[0] in allowed, name


@pytest.mark.parametrize(
    "path", [*modules("emotion_assets/assets"), *modules("emotion_assets/automation")], ids=lambda path: path.name
)
def test_dagster_code_stays_below_its_assembly(path: Path) -> None:
    """Assets and automation never import the definitions or the service."""
    assert not any(name.startswith(("emotion_assets.definitions", "emotion_service")) for name in own(path))


def test_packages_are_empty_on_purpose() -> None:
    """Importing the core must not import anything else."""
    for name in ("emotion_assets", "emotion_assets/core", "emotion_assets/steps"):
        assert (CHECKOUT / name / "__init__.py").read_text() == ""


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import emotion_assets.core.classifier, emotion_assets.core.image_stats", ["torch", "dagster", "pandas"]),
        ("import emotion_service.app", ["torch", "dagster", "pandas", "lightning", "evidently"]),
        ("import emotion_assets.definitions", ["torch", "lightning", "evidently", "bentoml", "matplotlib"]),
    ],
)
def test_imports_stay_light(statement: str, forbidden: list[str]) -> None:
    """Neither the service nor the definitions load what only a step needs."""
    script = f"{statement}\nimport sys\nprint([name for name in {forbidden} if name in sys.modules])"

    result = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"
