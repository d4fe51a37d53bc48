from __future__ import annotations

from importlib.metadata import version

from emotion_assets.steps.packing.requirements import pinned_packages


def test_packages_are_pinned_as_installed_and_complete() -> None:
    """What the service imports, with its dependencies, and nothing of the training stack."""
    pins = dict(line.split("==") for line in pinned_packages())

    assert {"bentoml", "onnxruntime", "pillow", "numpy", "starlette", "pydantic-settings", "httptools"} <= set(pins)
    assert pins["numpy"] == version("numpy")
    assert not {"torch", "dagster", "pytorch-lightning", "evidently", "pandas", "scikit-learn"} & set(pins)
