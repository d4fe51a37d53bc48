"""Export a trained network as a bundle, after checking that graph and network predict the same."""

from __future__ import annotations

import hashlib
import io
import logging
import platform
import time
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytorch_lightning as pl
import torch
from safetensors.torch import save as save_tensors
from sklearn.metrics import log_loss
from torch import Tensor, nn

from emotion_assets.core.bundle import (
    CORRUPTIONS_NAME,
    INT8_MODEL_NAME,
    MODEL_NAME,
    ORIENTATION_WEIGHTS_NAME,
    REFERENCE_NAME,
    TRAIN_IMAGES_NAME,
    WEIGHTS_NAME,
    Manifest,
    is_version,
    write_manifest,
)
from emotion_assets.core.classifier import golden_input
from emotion_assets.core.errors import BundleMismatchError
from emotion_assets.core.files import file_sha256, write_atomically
from emotion_assets.core.images import Pixels
from emotion_assets.core.layout import DataPaths
from emotion_assets.steps.reference.corruptions import corruption_profile
from emotion_assets.steps.reference.reference import build_reference
from emotion_assets.steps.splits.splits import hash_starts
from emotion_assets.steps.training.checkpoints import is_first_process, remove_run_files
from emotion_assets.steps.training.config import TrainingConfig
from emotion_assets.steps.training.model import InferenceModel, InferenceOutput, fuse_batch_norm
from emotion_assets.steps.training.quantize import MAX_ADDED_LOG_LOSS, quantize
from emotion_assets.steps.training.train import TrainedNetwork, train

_logger = logging.getLogger(__name__)

PARITY_TOLERANCE: Final = 1e-4
_NUM_PARITY_FACES: Final = 256
_BATCH_SIZE: Final = 256
_LIBRARIES: Final = ("torch", "pytorch-lightning", "numpy", "pillow", "onnx", "onnxruntime")


def train_and_export(
    paths: DataPaths,
    config: TrainingConfig,
    *,
    code_version: str,
    tracker: str,
    callbacks: Sequence[pl.Callback] = (),
) -> Path | None:
    """Train in this process; if it is the first of its run, export the bundle and return its folder, else None."""
    trained = train(
        paths.splits, paths.training_runs, config, code_version=code_version, tracker=tracker, callbacks=callbacks
    )
    if not is_first_process():
        return None
    bundle_dir = export_bundle(trained, paths.models)
    remove_run_files(trained.run.folder(config))
    return bundle_dir


def export_bundle(trained: TrainedNetwork, models_dir: Path) -> Path:
    """Write the bundle of a trained network to a new folder below `models_dir`, and return that folder.

    The validation faces are the test of parity and of the int8 graph, the drift reference and the corruption profile.

    Raises:
        BundleMismatchError: the graph's outputs differ from the network's by 1e-4 of the largest (or of 1) or more.
    """
    run, val = trained.run, trained.run.val
    model = InferenceModel(fuse_batch_norm(trained.network.cpu().float()), trained.temperature, trained.orientation)
    model.eval()
    files = {WEIGHTS_NAME: _encode_weights(trained.network), MODEL_NAME: _export_graph(model)}
    if trained.orientation is not None:
        files[ORIENTATION_WEIGHTS_NAME] = _encode_weights(trained.orientation)
    session = _open_session(files[MODEL_NAME])
    check_parity(model, session, np.concatenate([val.pixels[:_NUM_PARITY_FACES], golden_input()]))
    if trained.config.quantize_int8 and (int8_graph := _quantize_if_as_good(trained, files[MODEL_NAME], session)):
        files[INT8_MODEL_NAME], session = int8_graph, _open_session(int8_graph)

    def predict(pixels: Pixels) -> npt.NDArray[np.float32]:
        return _run(session, pixels)[0]

    files[REFERENCE_NAME] = build_reference(val, predict(val.pixels)).to_parquet(index=False)
    corruptions = corruption_profile(val, predict)
    if corruptions is not None:
        files[CORRUPTIONS_NAME] = corruptions.to_parquet(index=False)
    train_images = io.BytesIO()
    np.save(train_images, hash_starts(run.train.content_hashes))
    files[TRAIN_IMAGES_NAME] = train_images.getvalue()
    now = datetime.now(UTC)
    bundle_dir = models_dir / make_version(models_dir, now, files[WEIGHTS_NAME])
    for name, content in files.items():
        write_atomically(bundle_dir / name, content)
    write_manifest(
        bundle_dir,
        Manifest(
            version=bundle_dir.name,
            created_at=now.isoformat(timespec="seconds"),
            temperature=round(trained.temperature, 5),
            data_fingerprint=run.fingerprint,
            configuration=trained.config.model_dump(),
            code_version=run.code_version,
            environment=read_environment(),
            training=_describe_training(trained),
            metrics={name: value for name, value in trained.history[-1].items() if name.startswith("val/")},
            golden_prediction=predict(golden_input())[0].tolist(),
            files={name: file_sha256(bundle_dir / name) for name in files},
            emotions=list(val.emotions),
            titles=dict(zip(val.emotions, run.titles, strict=True)),
        ),
    )
    return bundle_dir


def _describe_training(trained: TrainedNetwork) -> dict[str, Any]:
    networks = [network for network in (trained.network, trained.orientation) if network is not None]
    return {
        "seconds": round(trained.seconds, 1),
        "cpu_seconds": round(trained.cpu_seconds, 1),
        "precision": trained.run.precision,
        "resumed_from_epoch": trained.resumed_from_epoch,
        "num_parameters": sum(parameter.numel() for network in networks for parameter in network.parameters()),
        "history": trained.history,
    }


def _quantize_if_as_good(trained: TrainedNetwork, graph: bytes, session: onnxruntime.InferenceSession) -> bytes | None:
    """Return the int8 graph, or None if its validation log loss is too high."""
    val, int8_graph = trained.run.val, quantize(graph, trained.run.train.pixels)
    float32_loss, int8_loss = (
        log_loss(val.class_indices, _run(each, val.pixels)[0], labels=range(len(val.emotions)))
        for each in (session, _open_session(int8_graph))
    )
    is_as_good = int8_loss <= float32_loss + MAX_ADDED_LOG_LOSS
    chosen = "int8" if is_as_good else "float32"
    _logger.info("Validation log loss %.3f in float32, %.3f in int8: using %s", float32_loss, int8_loss, chosen)
    return int8_graph if is_as_good else None


def read_environment() -> dict[str, str]:
    """Return the versions that affect the weights, besides data, configuration, code and processor."""
    versions = {name: version_of(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), "machine": platform.machine(), **versions}


def _encode_weights(network: nn.Module) -> bytes:
    content: bytes = save_tensors({name: value.contiguous() for name, value in network.state_dict().items()})
    return content


def _open_session(graph: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])


def _export_graph(model: InferenceModel) -> bytes:
    example = torch.zeros((2, *golden_input().shape[1:]), dtype=torch.uint8)
    exporter_logger = logging.getLogger("torch.onnx")
    level = exporter_logger.level
    exporter_logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's notes on its own internals
            program = torch.onnx.export(
                model,
                (example,),
                input_names=["pixels"],
                output_names=list(InferenceOutput._fields),
                dynamic_shapes={"pixels": {0: torch.export.Dim("image")}},
                dynamo=True,
                verbose=False,
            )
    finally:
        exporter_logger.setLevel(level)
    assert program is not None
    graph: bytes = program.model_proto.SerializeToString()
    return graph


def _run(session: onnxruntime.InferenceSession, pixels: Pixels) -> list[npt.NDArray[np.float32]]:
    chunks = [
        session.run(list(InferenceOutput._fields), {"pixels": pixels[start : start + _BATCH_SIZE]})
        for start in range(0, len(pixels), _BATCH_SIZE)
    ]
    return [np.concatenate(outputs) for outputs in zip(*chunks, strict=True)]


def check_parity(model: InferenceModel, session: onnxruntime.InferenceSession, pixels: Pixels) -> None:
    """Compare the outputs of graph and network on `pixels`, uint8 (image, 64, 64).

    Raises:
        BundleMismatchError: an output differs by more than the tolerance.
    """
    with torch.inference_mode():
        expected: list[Tensor] = list(model(torch.from_numpy(pixels)))
    for name, actual, tensor in zip(InferenceOutput._fields, _run(session, pixels), expected, strict=True):
        reference = tensor.numpy()
        difference = float(np.abs(actual - reference).max()) / max(1.0, float(np.abs(reference).max()))
        if not difference < PARITY_TOLERANCE:
            raise BundleMismatchError(
                f"The exported graph's {name} differ from the network's by {difference:.1e} (at most "
                f"{PARITY_TOLERANCE:.0e}); no bundle was written. Report this with the versions of torch and onnx."
            )


def make_version(models_dir: Path, now: datetime, weights: bytes) -> str:
    """Return a version that sorts after all others, even if the clock was set back."""
    digest = hashlib.sha256(weights + time.time_ns().to_bytes(8)).hexdigest()[:8]
    stamp = now.strftime("%Y%m%d-%H%M%S")
    newest = max((path.name for path in models_dir.glob("*-*-*") if is_version(path.name)), default="")
    if newest[: len(stamp)] >= stamp:
        date, clock = newest.split("-")[:2]
        stamp = f"{date}-{int(clock) + 1:06}"
    return f"{stamp}-{digest}"
