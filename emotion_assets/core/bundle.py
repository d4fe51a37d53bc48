"""A bundle: the folder of one trained model.

`model.onnx` takes raw uint8 pixels, `model_int8.onnx` is its 8-bit version if that is as accurate,
`weights.safetensors` has the network for further training, and `manifest.json`, written last, describes them.
Nothing in it is a pickle.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from emotion_assets.core.errors import BundleMismatchError
from emotion_assets.core.files import file_sha256, write_json
from emotion_assets.core.images import IMAGE_SIZE_PX

SCHEMA_VERSION: Final = 4
MODEL_NAME: Final = "model.onnx"
INT8_MODEL_NAME: Final = "model_int8.onnx"
"""Only if it is as accurate; then evaluation, drift detection and service all run it."""
WEIGHTS_NAME: Final = "weights.safetensors"
ORIENTATION_WEIGHTS_NAME: Final = "orientation_weights.safetensors"
"""Only if the model corrects orientation."""
REFERENCE_NAME: Final = "reference.parquet"
CORRUPTIONS_NAME: Final = "corruptions.parquet"
"""Only if there were enough validation images."""
TRAIN_IMAGES_NAME: Final = "train_images.npy"
"""The starts of the content hashes of the training images: the model must not be scored on them."""
MANIFEST_NAME: Final = "manifest.json"

_CHECKSUM: Final = "checksum"
_VERSION_PATTERN: Final = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A model's metadata: its training, its scores, and the hash of each file."""

    version: str
    """Sorts by time, e.g. `20261122-130501-1f2e3d4c`."""
    created_at: str
    """UTC, ISO 8601."""
    temperature: float
    data_fingerprint: str
    configuration: dict[str, Any]
    code_version: str
    environment: dict[str, str]
    """Versions of the libraries."""
    training: dict[str, Any]
    """Seconds, CPU seconds, precision, and one record of scores for each epoch."""
    metrics: dict[str, float]
    """Scores on the validation split, as `val/accuracy`."""
    golden_prediction: list[float]
    """The probabilities that the model predicts for `classifier.golden_input`."""
    files: dict[str, str]
    """SHA-256 of each file of the bundle, by name."""
    emotions: list[str]
    """The classes, in order."""
    titles: dict[str, str]
    """Display names of the classes, in order."""
    image_size_px: int = IMAGE_SIZE_PX
    schema_version: int = SCHEMA_VERSION


def write_manifest(bundle_dir: Path, manifest: Manifest) -> None:
    """Complete a bundle: write its manifest, after all other files."""
    record = asdict(manifest)
    write_json(bundle_dir / MANIFEST_NAME, record | {_CHECKSUM: manifest_checksum(record)})


def manifest_checksum(record: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a manifest's fields: a changed order of classes, say, would serve wrong labels."""
    fields = {name: value for name, value in record.items() if name != _CHECKSUM}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def read_manifest(bundle_dir: Path) -> Manifest:
    """Read a bundle's manifest without checking the other files.

    Raises:
        BundleMismatchError: it is missing, damaged, altered, or has another schema or another image size.
    """
    path = bundle_dir / MANIFEST_NAME
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleMismatchError(
            f"{bundle_dir} has no {MANIFEST_NAME}: it is not a bundle, or was never completed. Train again."
        ) from error
    except (OSError, ValueError) as error:
        raise BundleMismatchError(f"{path} cannot be read ({error}). Restore it or train again.") from error
    if not isinstance(record, dict) or record.get("schema_version") != SCHEMA_VERSION:
        found = record.get("schema_version") if isinstance(record, dict) else type(record).__name__
        raise BundleMismatchError(
            f"{path} has schema version {found!r}, this code reads {SCHEMA_VERSION}. Train again with this code."
        )
    if record.pop(_CHECKSUM, None) != manifest_checksum(record):
        raise BundleMismatchError(f"{path} was altered: its checksum does not match. Restore it or train again.")
    try:
        manifest = Manifest(**record)
    except TypeError as error:
        raise BundleMismatchError(f"{path} has missing or unknown fields ({error}). Train again.") from error
    if manifest.image_size_px != IMAGE_SIZE_PX:
        raise BundleMismatchError(
            f"{path} is for {manifest.image_size_px} px; this code is for {IMAGE_SIZE_PX} px. Train with this code, or "
            "start the service again with its newest bento."
        )
    is_consistent = len(set(manifest.emotions)) == len(manifest.emotions) == len(manifest.golden_prediction)
    if not is_consistent:
        raise BundleMismatchError(f"{path} has the contradictory classes {manifest.emotions}. Train again.")
    if not is_version(manifest.version):
        raise BundleMismatchError(f"{path} has the malformed version {manifest.version!r}. Train again.")
    return manifest


def check_files(bundle_dir: Path, manifest: Manifest) -> None:
    """Compare every file with its hash in the manifest.

    Raises:
        BundleMismatchError: a file is missing or altered; the message names it.
    """
    for name, digest in manifest.files.items():
        path = bundle_dir / name
        if Path(name).name != name or not path.is_file():
            raise BundleMismatchError(f"{path}, named by the manifest, is missing. Restore it or train again.")
        if file_sha256(path) != digest:
            raise BundleMismatchError(f"{path} was altered: its hash does not match. Restore it or train again.")


def runtime_model(manifest: Manifest) -> str:
    """Return the name of the ONNX file to run: the 8-bit one if there is one."""
    return INT8_MODEL_NAME if runtime_precision(manifest) == "int8" else MODEL_NAME


def runtime_precision(manifest: Manifest) -> str:
    """Return the precision of the convolutions of the model to run, `int8` or `float32`."""
    return "int8" if INT8_MODEL_NAME in manifest.files else "float32"


def is_version(text: str) -> bool:
    """Return whether `text` is formatted as a model version."""
    return _VERSION_PATTERN.fullmatch(text) is not None


def complete_versions(models_dir: Path) -> list[str]:
    """Return the versions of all complete bundles, oldest first by name."""
    complete = (path.parent.name for path in models_dir.glob(f"*/{MANIFEST_NAME}"))
    return sorted(name for name in complete if is_version(name))
