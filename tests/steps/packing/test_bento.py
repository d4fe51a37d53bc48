from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import bentoml
import numpy as np
import pytest

from emotion_assets.core.classifier import Classifier
from emotion_assets.steps.packing.bento import BENTO_NAME, MODEL_NAME, build_bento

CHECKOUT = Path(__file__).parents[3]


@pytest.fixture
def stores() -> Path:
    """BentoML's stores, empty."""
    home = Path(os.environ["BENTOML_HOME"])
    for path in (home / "models" / MODEL_NAME, home / "bentos" / BENTO_NAME):
        shutil.rmtree(path, ignore_errors=True)
    return home


def test_pack_gives_model_and_bento_one_version(bundle_dir: Path, stores: Path) -> None:
    """Both are found under the bundle's version and as latest; the model works."""
    packed = build_bento(bundle_dir, {"run_id": "r"})

    assert packed.version == bundle_dir.name
    assert bentoml.models.get(f"{MODEL_NAME}:latest").tag.version == packed.version
    assert bentoml.bentos.get(f"{BENTO_NAME}:latest").tag.version == packed.version
    assert bentoml.models.get(f"{MODEL_NAME}:{packed.version}").info.labels == {"run_id": "r"}
    Classifier(packed.model_dir).self_test()


def test_bento_carries_the_service_and_no_training_stack(bundle_dir: Path, stores: Path) -> None:
    """Pinned packages only, none of the training stack; sources of the service and the core only."""
    packed = build_bento(bundle_dir, {})

    assert all("==" in requirement for requirement in packed.requirements)
    names = {requirement.partition("==")[0] for requirement in packed.requirements}
    assert names >= {"bentoml", "onnxruntime", "pillow", "numpy", "starlette"}
    assert names.isdisjoint({"torch", "dagster", "lightning", "evidently", "pandas", "scikit-learn"})
    sources = {
        path.relative_to(packed.bento_dir / "src").parts[:2] for path in (packed.bento_dir / "src").rglob("*.py")
    }
    assert {parts[0] for parts in sources} == {"emotion_service", "emotion_assets"}
    assert {parts[1] for parts in sources if parts[0] == "emotion_assets"} == {"core", "__init__.py"}
    assert (packed.bento_dir / "src" / "emotion_service" / "web" / "index.html").exists()


def test_a_bento_has_no_settings_of_this_machine(
    bundle_dir: Path, stores: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BentoML would write the address of the collector, password included, into the bento."""
    monkeypatch.setenv("EMOTION_TOKEN", "hunter2")
    monkeypatch.setenv("EMOTION_ALERT_URLS", "jsons://user:hunter2@example.org")
    monkeypatch.setenv("EMOTION_TRACES_URL", "http://user:hunter2@localhost:4318/v1/traces")
    monkeypatch.setenv("WANDB_API_KEY", "hunter2")
    packed = build_bento(bundle_dir, {})

    files = [path for folder in (packed.bento_dir, packed.model_dir) for path in folder.rglob("*") if path.is_file()]
    assert packed.was_built
    assert [path.name for path in files if b"hunter2" in path.read_bytes()] == []


def test_a_bento_serves_its_own_model_and_code_from_any_folder(bundle_dir: Path, stores: Path) -> None:
    """A newer model in the store changes nothing, and inside a checkout the bento's code takes precedence."""
    packed = build_bento(bundle_dir, {})
    with bentoml.models.create(f"{MODEL_NAME}:29990101-000000-00000000"):
        pass
    script = (
        "import bentoml\n"
        f"service = bentoml.load('{BENTO_NAME}:{packed.version}')\n"
        "print(service.inner.__dict__['packed_model'].resolve().path)\n"
        "import emotion_service.app, emotion_assets.core.images\n"
        "print(emotion_service.app.__file__)\n"
        "print(emotion_assets.core.images.__file__)"
    )

    result = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=True)

    model_dir, *sources = result.stdout.split()
    assert model_dir.endswith(f"emotion_cnn/{packed.version}")
    assert all(source.startswith(str(packed.bento_dir)) for source in sources)


def test_pack_builds_once_and_heals_torn_stores(bundle_dir: Path, stores: Path) -> None:
    """An identical bento is kept; an empty `latest`, an incomplete item and a damaged model are repaired."""
    first = build_bento(bundle_dir, {})
    assert first.was_built
    assert not build_bento(bundle_dir, {}).was_built

    (stores / "models" / MODEL_NAME / "latest").write_text("")
    (stores / "bentos" / BENTO_NAME / "latest").write_text("20990101-000000-00000000")
    (stores / "bentos" / BENTO_NAME / "20250101-000000-00000000" / "src").mkdir(parents=True)
    (first.model_dir / "model.onnx").write_bytes(b"torn")
    (first.bento_dir / "src" / "emotion_service" / "app.py").unlink()
    healed = build_bento(bundle_dir, {})
    bentoml.bentos.list()  # no incomplete item is in its way
    build_file = healed.bento_dir / "src" / "bentofile.yaml"
    build_file.write_text(build_file.read_text().replace(f"numpy=={np.__version__}", "numpy==1.0"))

    assert healed.was_built
    assert build_bento(bundle_dir, {}).was_built
    assert bentoml.bentos.get(f"{BENTO_NAME}:latest").tag.version == healed.version
    assert [path.name for path in (stores / "bentos" / BENTO_NAME).iterdir() if path.is_dir()] == [healed.version]
    Classifier(healed.model_dir).self_test()
