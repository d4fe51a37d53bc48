"""Pack an accepted model for BentoML: the model into its model store, then the bento that serves it.

BentoML copies files one by one into their final folder and writes `latest` in place, so a kill can leave half an item
or an empty `latest`, on which every later command fails. Packing repairs both first, and builds the bento in a store of
its own, in a process of its own.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import bentoml
import psutil
import yaml

from emotion_assets.core.bundle import MANIFEST_NAME, Manifest, check_files, read_manifest
from emotion_assets.core.classifier import Classifier
from emotion_assets.core.errors import BundleMismatchError
from emotion_assets.core.files import locked, write_atomically
from emotion_assets.core.layout import DataPaths
from emotion_assets.core.summary import Summary
from emotion_assets.steps.packing.requirements import pinned_packages
from emotion_assets.steps.registry.registry import CARD_NAME, Registry, read_scores

MODEL_NAME: Final = "emotion_cnn"
BENTO_NAME: Final = "emotion_service"

_CHECKOUT: Final = Path(__file__).parents[3]
# What the service imports: its own package and the core.
_PACKED: Final = ("emotion_service", "emotion_assets/core")
_TRAINING_PACKAGES: Final = ("torch", "dagster", "lightning", "pytorch-lightning", "evidently")


@dataclass(frozen=True, slots=True)
class PackedBento:
    """A packed model and its bento."""

    version: str
    model_dir: Path
    bento_dir: Path
    was_built: bool
    """False when an identical bento existed."""

    @property
    def requirements(self) -> list[str]:
        """`name==version` of every package of the image."""
        return (self.bento_dir / "env" / "python" / "requirements.txt").read_text().split()

    def foreign_packages(self) -> list[str]:
        """Return the packages of the training stack that the image would install; there should be none."""
        return [line for line in self.requirements if line.startswith(_TRAINING_PACKAGES)]

    def passes_self_test(self) -> bool:
        """Run the stored model's self-test; return whether that model is this version.

        Raises:
            BundleMismatchError: the test failed.
        """
        classifier = Classifier(Path(bentoml.models.get(f"{MODEL_NAME}:latest").path))
        classifier.self_test()
        return classifier.version == self.version

    def summary(self) -> Summary:
        """Return what the asset shows."""
        files = [path for path in self.bento_dir.rglob("*") if path.is_file()]
        return Summary(
            values={
                "version": self.version,
                "tag": f"{BENTO_NAME}:{self.version}",
                "was_built": self.was_built,
                "size_bytes": sum(path.stat().st_size for path in files),
                "num_packages": len(set(self.requirements)),
            },
            texts={"serve": "`make serve`"},
            files={"bento": self.bento_dir},
        )


def pack_champion(paths: DataPaths, labels: Mapping[str, str]) -> PackedBento:
    """Pack the accepted model.

    Raises:
        MissingModelError: no model has been accepted yet.
        BundleMismatchError: its bundle is damaged, or the bento cannot be built.
    """
    registry = Registry(paths.models)
    # A rollback in between would leave another bento as the latest.
    with registry.locked():
        return pack_version(paths, registry.require_champion().name, labels)


def pack_version(paths: DataPaths, version: str, labels: Mapping[str, str] | None = None) -> PackedBento:
    """Pack one version with its test scores as labels; the caller holds the registry's lock."""
    manifest = read_manifest(paths.models / version)
    found = {"data_fingerprint": manifest.data_fingerprint[:12]}
    found |= {f"test_{name}": text for name, text in read_scores(paths.evaluation_report(version)).items()}
    return build_bento(paths.models / version, {**(labels or {}), **found})


def build_bento(bundle_dir: Path, labels: Mapping[str, str]) -> PackedBento:
    """Store the bundle as model `emotion_cnn:<version>` and build the bento `emotion_service:<version>`.

    `latest` of both stores then names this version. Labels are written to what is stored or built now; an identical
    item keeps its own.

    Raises:
        BundleMismatchError: the bundle is incomplete or altered, or BentoML could not build.
    """
    manifest = read_manifest(bundle_dir)
    check_files(bundle_dir, manifest)
    home = bentoml_home()
    models_dir, bentos_dir = home / "models" / MODEL_NAME, home / "bentos" / BENTO_NAME
    with locked(home / f".{BENTO_NAME}.lock"):
        _repair(models_dir, "model.yaml")
        _repair(bentos_dir, "bento.yaml")
        model_dir = _store_model(bundle_dir, manifest, models_dir, labels)
        write_atomically(models_dir / "latest", manifest.version)
        bento_dir = bentos_dir / manifest.version
        with tempfile.TemporaryDirectory() as folder:
            _stage(Path(folder), manifest.version)
            was_built = not _is_current(bento_dir, Path(folder))
            if was_built:
                _build(Path(folder), home, bento_dir, labels)
        write_atomically(bentos_dir / "latest", manifest.version)
    return PackedBento(manifest.version, model_dir, bento_dir, was_built)


def delete_packed(version: str) -> None:
    """Delete the model and the bento of a version from BentoML's stores."""
    home = bentoml_home()
    with locked(home / f".{BENTO_NAME}.lock"):
        for store_dir, record_name in (
            (home / "bentos" / BENTO_NAME, "bento.yaml"),
            (home / "models" / MODEL_NAME, "model.yaml"),
        ):
            (store_dir / version / record_name).unlink(missing_ok=True)
            _repair(store_dir, record_name)


def served_versions() -> set[str]:
    """Return the versions whose bento is the working folder of a process on this machine, as it is of a service."""
    bentos_dir = (bentoml_home() / "bentos" / BENTO_NAME).resolve()
    folders = [Path(process.info["cwd"]) for process in psutil.process_iter(["cwd"]) if process.info["cwd"]]
    return {folder.relative_to(bentos_dir).parts[0] for folder in folders if bentos_dir in folder.parents}


def bentoml_home() -> Path:
    """Return the folder of BentoML's stores."""
    return Path(os.environ.get("BENTOML_HOME") or Path.home() / "bentoml")


def _repair(store_dir: Path, record_name: str) -> None:
    """Remove incomplete items, and a `latest` that names none."""
    if not store_dir.is_dir():
        return
    for item in store_dir.iterdir():
        if item.is_dir() and not (item / record_name).exists():
            shutil.rmtree(item)
    latest = store_dir / "latest"
    if latest.exists():
        version = latest.read_text().strip()
        if not version or not (store_dir / version / record_name).exists():
            latest.unlink()


def _store_model(bundle_dir: Path, manifest: Manifest, models_dir: Path, labels: Mapping[str, str]) -> Path:
    model_dir = models_dir / manifest.version
    if model_dir.is_dir():
        try:
            check_files(model_dir, read_manifest(model_dir))
            return model_dir
        except BundleMismatchError:
            shutil.rmtree(model_dir)
    metadata = {
        "emotions": manifest.emotions,
        "metrics": manifest.metrics,
        "data_fingerprint": manifest.data_fingerprint,
    }
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    with bentoml.models.create(f"{MODEL_NAME}:{manifest.version}", labels=dict(labels), metadata=metadata) as model:
        for name in (*manifest.files, MANIFEST_NAME, CARD_NAME):
            if (bundle_dir / name).exists():
                shutil.copyfile(bundle_dir / name, model.path_of(name))
    return model_dir


def _stage(staging: Path, version: str) -> None:
    """Lay out what goes into the bento: the sources, and a build file with its model and packages."""
    for name in _PACKED:
        shutil.copytree(_CHECKOUT / name, staging / name, ignore=shutil.ignore_patterns("__pycache__"))
    (staging / "emotion_assets" / "__init__.py").touch()
    bentofile = {
        "service": f"{BENTO_NAME}.service:EmotionService",
        "include": ["**/*"],
        "args": {"model_version": version, "packages": pinned_packages()},
    }
    (staging / "bentofile.yaml").write_text(yaml.safe_dump(bentofile))


def _is_current(bento_dir: Path, staging: Path) -> bool:
    """Return whether the bento exists and has the sources, model and packages that would be packed now."""
    files = [path.relative_to(staging) for path in staging.rglob("*") if path.is_file()]
    _, different, missing = filecmp.cmpfiles(staging, bento_dir / "src", files, shallow=False)
    return (bento_dir / "bento.yaml").exists() and not different and not missing


def _build(staging: Path, home: Path, bento_dir: Path, labels: Mapping[str, str]) -> None:
    """Build in a home of its own, then move the bento into place: what is served now stays until then."""
    workshop = home / ".emotion_building"
    shutil.rmtree(workshop, ignore_errors=True)
    workshop.mkdir(parents=True)
    (workshop / "models").symlink_to(home / "models")
    command = [sys.executable, "-m", "bentoml", "build", str(staging), "--name", BENTO_NAME]
    command += ["--version", bento_dir.name]
    command += [word for name, value in labels.items() for word in ("--label", f"{name}={value}")]
    # BentoML writes the service's configuration into the bento; this machine's settings do not belong there.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EMOTION_")}
    environment |= {"BENTOML_HOME": str(workshop), "BENTOML_DO_NOT_TRACK": "True"}
    try:
        done = subprocess.run(command, env=environment, cwd=staging, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise BundleMismatchError(f"BentoML could not build {BENTO_NAME}:{bento_dir.name}:\n{done.stderr[-2000:]}")
        bento_dir.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(bento_dir, ignore_errors=True)
        (workshop / "bentos" / BENTO_NAME / bento_dir.name).rename(bento_dir)
    finally:
        (workshop / "models").unlink(missing_ok=True)
        shutil.rmtree(workshop, ignore_errors=True)
