from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions, version
from pathlib import Path

import emotion_assets
from emotion_assets.steps.packing.requirements import pinned_packages

CHECKOUT = Path(emotion_assets.__file__).parents[1]


def imported_packages() -> Iterator[tuple[Path, str]]:
    """Yield every package that the code inside a bento imports, with the module that does."""
    for path in [*(CHECKOUT / "emotion_service").rglob("*.py"), *(CHECKOUT / "emotion_assets" / "core").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            yield from ((path, name.partition(".")[0]) for name in names)


def test_packages_are_pinned_as_installed_and_complete() -> None:
    """What the service imports, with its dependencies, and nothing of the training stack."""
    pins = dict(line.split("==") for line in pinned_packages())

    assert {"bentoml", "onnxruntime", "pillow", "numpy", "starlette", "pydantic-settings", "httptools"} <= set(pins)
    assert pins["numpy"] == version("numpy")
    assert not {"torch", "dagster", "pytorch-lightning", "evidently", "pandas", "scikit-learn"} & set(pins)


def test_the_image_has_what_its_code_imports() -> None:
    """Found from the sources: here everything is installed, so a missing package would only show in the container."""
    pins = {line.partition("==")[0] for line in pinned_packages()}
    distributions = packages_distributions()

    for path, name in imported_packages():
        if name == "obstore" and name not in distributions:
            continue  # only where the data root is in object storage
        if name not in sys.stdlib_module_names and not name.startswith("emotion_"):
            found = {each.lower().replace("_", "-") for each in distributions[name]}
            assert found & pins, f"{path} imports {name}"
