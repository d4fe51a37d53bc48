"""Which model a service loads when it starts; everything behind the routes is tested with the app."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import bentoml
import pytest

from emotion_assets.steps.packing.bento import build_bento
from tests.bundles import change_manifest

SCRIPT = """
import bentoml
service = bentoml.load("emotion_service:latest")
instance = service.inner()
print(instance.model_version, instance.__is_ready__())
instance.close()
"""


def start(data_dir: Path, **settings: str) -> tuple[str, str]:
    """Start the latest bento's service in a process of its own; return the version with its readiness, and the log."""
    environment = os.environ | {"EMOTION_DATA_DIR": str(data_dir), **settings}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1], done.stdout + done.stderr


@pytest.fixture(scope="module")
def packed_version(bundle_dir: Path) -> str:
    return build_bento(bundle_dir, {}).version


def accept(data_dir: Path, bundle_dir: Path, version: str) -> None:
    """Make a copy of the bundle the champion of a data root."""
    target = data_dir / "models" / version
    target.mkdir(parents=True)
    for path in bundle_dir.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    change_manifest(target, version=version)
    (data_dir / "models" / "champion.json").write_text(json.dumps({"version": version}))


def test_without_a_champion_the_packed_model_is_served(packed_version: str, tmp_path: Path) -> None:
    """And the log says so: another data root may have packed it."""
    served, log = start(tmp_path)

    assert served == f"{packed_version} True"
    reason = f"no model was accepted in {tmp_path / 'models'}"
    assert f"Serving model {packed_version}, which was packed into the bento: {reason}" in log


@pytest.mark.parametrize(("follow", "is_champion_served"), [("1", True), ("0", False)])
def test_the_champion_is_served_if_it_is_followed(
    packed_version: str, bundle_dir: Path, tmp_path: Path, follow: str, is_champion_served: bool
) -> None:
    """A container that pins its version does not follow the data root."""
    champion = "20990101-000000-00000000"
    accept(tmp_path, bundle_dir, champion)

    served = champion if is_champion_served else packed_version
    found, log = start(tmp_path, EMOTION_FOLLOW_CHAMPION=follow)
    assert found == f"{served} True"
    assert ("EMOTION_FOLLOW_CHAMPION is off" in log) is not is_champion_served


def test_a_damaged_champion_leaves_the_packed_model(packed_version: str, bundle_dir: Path, tmp_path: Path) -> None:
    champion = "20990101-000000-00000000"
    accept(tmp_path, bundle_dir, champion)
    (tmp_path / "models" / champion / "model.onnx").write_bytes(b"damaged")

    served, log = start(tmp_path)

    assert served == f"{packed_version} True"
    assert f"champion {champion} cannot be served" in log


def test_without_any_model_the_service_stays_up_unready(packed_version: str, tmp_path: Path) -> None:
    """It says why in one message and waits for an accepted model, instead of dying and being started for ever."""
    model = Path(bentoml.models.get(f"emotion_cnn:{packed_version}").path) / "model.onnx"
    content = model.read_bytes()
    model.write_bytes(b"damaged")
    try:
        environment = os.environ | {"EMOTION_DATA_DIR": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
        )
    finally:
        model.write_bytes(content)

    assert done.stdout.strip().splitlines()[-1] == "none False"
    assert done.stderr.count("No model can be served") + done.stdout.count("No model can be served") == 1
    assert "Traceback" not in done.stderr


def test_invalid_settings_are_explained(packed_version: str, tmp_path: Path) -> None:
    """BentoML would otherwise say that it found no such service."""
    command = [str(Path(sys.executable).parent / "bentoml"), "serve", f"emotion_service:{packed_version}"]
    environment = os.environ | {"EMOTION_DATA_DIR": str(tmp_path), "EMOTION_TIMEOUT_SECONDS": "0,5"}

    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)

    assert done.returncode == 1
    assert "EMOTION_TIMEOUT_SECONDS is '0,5': Input should be a valid number" in done.stderr
    assert "not found in module" not in done.stderr
