"""Put an accepted bundle into BentoML's stores: the model, then the bento that serves it.

BentoML copies files one by one into their final folder and writes `latest` in place, so a kill can leave
half an item or an empty `latest`, on which everything after it fails. Packing repairs both first.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Final

import bentoml
from bentoml._internal.bento.bento import BentoStore
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml.exceptions import BentoMLException

from emotion_assets.core.bundle import MANIFEST_NAME, Manifest, check_files, read_manifest
from emotion_assets.core.errors import BundleMismatchError
from emotion_assets.core.files import file_sha256, is_in_use, locked, write_atomically
from emotion_assets.steps.registry.registry import CARD_NAME, SCORES_NAME

MODEL_NAME: Final = "emotion_cnn"
BENTO_NAME: Final = "emotion_service"
SERVICE: Final = "emotion_service.service:EmotionService"

_CHECKOUT: Final = Path(__file__).parents[3]
# What the service imports: its own package and the core, nothing that knows Dagster or torch.
_PACKED: Final = ("emotion_service", "emotion_assets/core", "emotion_assets/__init__.py")


@dataclass(frozen=True, slots=True)
class PackedBento:
    """Where the packed model and bento are."""

    version: str
    model_dir: Path
    bento_dir: Path
    size_bytes: int
    requirements: list[str]
    was_built: bool
    """False when an equal bento was there already."""


def build_bento(bundle_dir: Path, labels: dict[str, str]) -> PackedBento:
    """Store the bundle as model `emotion_cnn:<version>` and build bento `emotion_service:<version>`.

    Both stores' `latest` then name this version. Labels (run id, scores, …) go with what is stored or built now; an
    equal item that is there already keeps its own.

    Raises:
        BundleMismatchError: the bundle is incomplete or altered.
    """
    manifest = read_manifest(bundle_dir)
    check_files(bundle_dir, manifest)
    models_dir = Path(BentoMLContainer.model_store_dir.get()) / MODEL_NAME
    bentos_dir = Path(BentoMLContainer.bento_store_dir.get()) / BENTO_NAME
    with locked(models_dir.parent / f".{MODEL_NAME}.lock"):
        return _pack(bundle_dir, manifest, models_dir, bentos_dir, labels)


def read_labels(report_dir: Path) -> dict[str, str]:
    """Return the test scores of a written evaluation as labels; none where there is no evaluation."""
    path = report_dir / SCORES_NAME
    if not path.exists():
        return {}
    test = json.loads(path.read_text())["test"]
    return {f"test_{name}": f"{test[name]:.4f}" for name in ("accuracy", "macro_f1", "calibration_error")}


def is_served(version: str) -> bool:
    """Tell whether a service on this machine was started from the bento of a version; its workers may need it again."""
    return is_in_use(Path(BentoMLContainer.bento_store_dir.get()) / BENTO_NAME / version / "bento.yaml")


def delete_packed(version: str) -> None:
    """Remove a version from both of BentoML's stores; a `latest` that names it goes too, until the next pack."""
    models_dir = Path(BentoMLContainer.model_store_dir.get()) / MODEL_NAME
    bentos_dir = Path(BentoMLContainer.bento_store_dir.get()) / BENTO_NAME
    with locked(models_dir.parent / f".{MODEL_NAME}.lock"):
        for store_dir, record_name in ((bentos_dir, "bento.yaml"), (models_dir, "model.yaml")):
            (store_dir / version / record_name).unlink(missing_ok=True)
            _repair(store_dir, record_name)


def _pack(
    bundle_dir: Path, manifest: Manifest, models_dir: Path, bentos_dir: Path, labels: dict[str, str]
) -> PackedBento:
    _repair(models_dir, "model.yaml")
    _repair(bentos_dir, "bento.yaml")
    model_dir = _store_model(bundle_dir, manifest, models_dir, labels)
    write_atomically(models_dir / "latest", manifest.version)
    with tempfile.TemporaryDirectory() as folder:
        staging = Path(folder)
        _stage(staging, manifest.version)
        bento_dir = bentos_dir / manifest.version
        was_built = not _is_built(bento_dir, staging)
        if was_built:
            _build(staging, bento_dir, labels)
    write_atomically(bentos_dir / "latest", manifest.version)
    requirements = (bento_dir / "env" / "python" / "requirements.txt").read_text().split()
    size_bytes = sum(path.stat().st_size for path in bento_dir.rglob("*") if path.is_file())
    return PackedBento(manifest.version, model_dir, bento_dir, size_bytes, requirements, was_built)


def _repair(store_dir: Path, record_name: str) -> None:
    """Remove half-written items, and a `latest` that names none."""
    if not store_dir.is_dir():
        return
    for item in store_dir.iterdir():
        if item.is_dir() and not (item / record_name).exists():
            shutil.rmtree(item)
    latest = store_dir / "latest"
    if latest.exists():
        named = latest.read_text().strip()
        if not named or not (store_dir / named / record_name).exists():
            latest.unlink()


def _store_model(bundle_dir: Path, manifest: Manifest, models_dir: Path, labels: dict[str, str]) -> Path:
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
    with bentoml.models.create(f"{MODEL_NAME}:{manifest.version}", labels=labels, metadata=metadata) as model:
        for name in (*manifest.files, MANIFEST_NAME):
            shutil.copyfile(bundle_dir / name, model.path_of(name))
        if (bundle_dir / CARD_NAME).exists():
            shutil.copyfile(bundle_dir / CARD_NAME, model.path_of(CARD_NAME))
    return model_dir


def _stage(staging: Path, version: str) -> None:
    """Lay out what goes into the bento: sources, and the version of the model that they serve."""
    for name in _PACKED:
        source, target = _CHECKOUT / name, staging / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    (staging / "emotion_service" / "MODEL_VERSION").write_text(version + "\n")


def _is_built(bento_dir: Path, staging: Path) -> bool:
    """Tell whether the bento is whole and holds the code and packages that would be packed now."""
    requirements_path = bento_dir / "env" / "python" / "requirements.txt"
    if not (bento_dir / "bento.yaml").exists() or not requirements_path.exists():
        return False
    # The image gets the versions that were installed here; an update for safety's sake must reach it.
    if not all(_is_installed(requirement) for requirement in requirements_path.read_text().split()):
        return False
    files = [path.relative_to(staging) for path in staging.rglob("*") if path.is_file()]
    return all(
        (bento_dir / "src" / name).is_file() and file_sha256(bento_dir / "src" / name) == file_sha256(staging / name)
        for name in files
    )


def _is_installed(requirement: str) -> bool:
    name, _, pinned = requirement.partition("==")
    try:
        return version(name) == pinned
    except PackageNotFoundError:
        return False


@contextlib.contextmanager
def _imported_anew(package: str) -> Iterator[None]:
    """Let a package be imported once more, from where it lies now; afterwards the modules are as before.

    BentoML imports the service to read its model's version. A process that packed before, or that serves, has an
    older version in memory, which would be written into the new bento.
    """

    def loaded() -> dict[str, ModuleType]:
        names = [name for name in sys.modules if name == package or name.startswith(f"{package}.")]
        return {name: sys.modules.pop(name) for name in names}

    before = loaded()
    try:
        yield
    finally:
        loaded()
        sys.modules.update(before)


def _build(staging: Path, bento_dir: Path, labels: dict[str, str]) -> None:
    """Build in a store of its own, then move the whole bento into place: what is served now stays until then."""
    name = f"{BENTO_NAME}:{bento_dir.name}"
    # Beside BentoML's store, on the same file system: in it, every folder must be named like a bento.
    workshop = bento_dir.parents[2] / ".emotion_building"
    shutil.rmtree(workshop, ignore_errors=True)
    (workshop / BENTO_NAME).mkdir(parents=True)
    try:
        with contextlib.chdir(staging), _imported_anew("emotion_service"):
            bentoml.bentos.build(
                SERVICE,
                build_ctx=str(staging),
                include=["**/*"],
                labels=labels,
                version=bento_dir.name,
                name=BENTO_NAME,
                _bento_store=BentoStore(workshop),
            )
        bento_dir.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(bento_dir, ignore_errors=True)
        (workshop / BENTO_NAME / bento_dir.name).rename(bento_dir)
    except BentoMLException as error:
        raise BundleMismatchError(f"BentoML could not build {name} ({error}).") from error
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
