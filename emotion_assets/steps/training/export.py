"""Write a trained network as a bundle, and prove that the exported graph answers like the network."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import logging
import platform
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime
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
    WEIGHTS_NAME,
    Manifest,
    is_version,
    write_manifest,
)
from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.classifier import golden_input
from emotion_assets.core.errors import BundleMismatchError
from emotion_assets.core.files import file_sha256, write_atomically
from emotion_assets.core.images import Pixels
from emotion_assets.steps.reference.corruptions import corruption_profile
from emotion_assets.steps.reference.reference import build_reference
from emotion_assets.steps.training.model import InferenceModel, InferenceOutput, fuse_batch_norm
from emotion_assets.steps.training.quantize import MAX_ADDED_LOG_LOSS, quantize
from emotion_assets.steps.training.train import TrainedNetwork

PARITY_TOLERANCE: Final = 1e-4
_NUM_PARITY_FACES: Final = 256
_LIBRARIES: Final = ("torch", "lightning", "numpy", "pillow", "onnx", "onnxruntime")


def export_bundle(
    trained: TrainedNetwork, models_dir: Path, code_version: str, log: Callable[[str], None] = lambda _: None
) -> Path:
    """Write the bundle of a trained network below `models_dir` and return its folder.

    Args:
        trained: from `train`; graph and network are compared on its validation faces, which also make the drift
            reference and the corruption profile of changes.
        models_dir: gets a folder named by the new version.
        code_version: what identifies the code, such as a commit.
        log: told what takes a while.

    Raises:
        BundleMismatchError: the graph's answers differ from the network's by 1e-4 of the largest (or of 1) or more.
    """
    plain = fuse_batch_norm(trained.network.cpu().float())
    served = InferenceModel(plain, trained.temperature, trained.orientation).eval()
    weights = {WEIGHTS_NAME: _saved(trained.network)}
    if trained.orientation is not None:
        weights[ORIENTATION_WEIGHTS_NAME] = _saved(trained.orientation)
    graph = _export_graph(served)
    val, session = trained.val, onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    _check_parity(served, session, np.concatenate([val.pixels[:_NUM_PARITY_FACES], golden_input()]))
    graphs = {MODEL_NAME: graph}
    if trained.config.quantize_int8:
        int8_graph = quantize(graph, trained.train.pixels)
        int8_session = onnxruntime.InferenceSession(int8_graph, providers=["CPUExecutionProvider"])
        losses = [
            log_loss(val.class_indices, _run(each, val.pixels)[0], labels=range(len(EMOTIONS)))
            for each in (session, int8_session)
        ]
        is_as_good = losses[1] <= losses[0] + MAX_ADDED_LOG_LOSS
        log(
            f"Log loss on validation faces {losses[0]:.3f} in float32, {losses[1]:.3f} in int8: "
            f"{'int8' if is_as_good else 'float32'} will run"
        )
        if is_as_good:
            graphs[INT8_MODEL_NAME], session = int8_graph, int8_session
    yardsticks = {REFERENCE_NAME: build_reference(val, _run(session, val.pixels)[0])}
    corruptions = corruption_profile(val, lambda pixels: _run(session, pixels)[0], log)
    if corruptions is not None:
        yardsticks[CORRUPTIONS_NAME] = corruptions
    now = datetime.now(UTC)
    bundle_dir = models_dir / _new_version(models_dir, now, weights[WEIGHTS_NAME])
    for name, content in (graphs | weights).items():
        write_atomically(bundle_dir / name, content)
    for name, table in yardsticks.items():
        file = io.BytesIO()
        table.to_parquet(file, index=False)
        write_atomically(bundle_dir / name, file.getvalue())
    last = trained.history[-1] if trained.history else {}
    write_manifest(
        bundle_dir,
        Manifest(
            version=bundle_dir.name,
            created_at=now.isoformat(timespec="seconds"),
            temperature=round(trained.temperature, 5),
            data_fingerprint=trained.data_fingerprint,
            configuration=dataclasses.asdict(trained.config),
            code_version=code_version,
            environment=environment(),
            training={
                "seconds": round(trained.seconds, 1),
                "cpu_seconds": round(trained.cpu_seconds, 1),
                "precision": trained.precision,
                "resumed_from_epoch": trained.resumed_from_epoch,
                "num_parameters": sum(
                    parameter.numel()
                    for network in (trained.network, trained.orientation)
                    if network is not None
                    for parameter in network.parameters()
                ),
                "history": trained.history,
            },
            metrics={name: value for name, value in last.items() if name.startswith("val/")},
            golden_prediction=_run(session, golden_input())[0][0].tolist(),
            files={name: file_sha256(bundle_dir / name) for name in (*graphs, *weights, *yardsticks)},
        ),
    )
    return bundle_dir


def environment() -> dict[str, str]:
    """Return the versions that decide about weights, beside data, configuration, code and processor."""
    versions = {name: version_of(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), "machine": platform.machine(), **versions}


def _saved(network: nn.Module) -> bytes:
    content: bytes = save_tensors({name: value.contiguous() for name, value in network.state_dict().items()})
    return content


def _export_graph(served: InferenceModel) -> bytes:
    example = torch.zeros((2, *golden_input().shape[1:]), dtype=torch.uint8)
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's notes on its own internals
            program = torch.onnx.export(
                served,
                (example,),
                input_names=["pixels"],
                output_names=list(InferenceOutput._fields),
                dynamic_shapes={"pixels": {0: torch.export.Dim("image")}},
                dynamo=True,
                verbose=False,
            )
    finally:
        quiet.setLevel(level)
    assert program is not None
    buffer = io.BytesIO()
    onnx.save_model(program.model_proto, buffer)
    return buffer.getvalue()


def _run(session: onnxruntime.InferenceSession, pixels: Pixels) -> list[np.ndarray]:
    chunks = [
        session.run(list(InferenceOutput._fields), {"pixels": pixels[start : start + _NUM_PARITY_FACES]})
        for start in range(0, len(pixels), _NUM_PARITY_FACES)
    ]
    return [np.concatenate(outputs) for outputs in zip(*chunks, strict=True)]


def _check_parity(served: InferenceModel, session: onnxruntime.InferenceSession, pixels: Pixels) -> None:
    with torch.inference_mode():
        expected: list[Tensor] = list(served(torch.from_numpy(pixels)))
    for name, ours, theirs in zip(InferenceOutput._fields, _run(session, pixels), expected, strict=True):
        reference = theirs.numpy()
        scale = max(1.0, float(np.abs(reference).max()))
        difference = float(np.abs(ours - reference).max()) / scale
        if not difference < PARITY_TOLERANCE:
            raise BundleMismatchError(
                f"The exported graph's {name} differ from the network's by {difference:.1e} "
                f"(at most {PARITY_TOLERANCE:.0e}). Nothing is kept; report this with the versions of torch and onnx."
            )


def _new_version(models_dir: Path, now: datetime, weights: bytes) -> str:
    """Return a version that sorts after all others, also when the clock was set back."""
    digest = hashlib.sha256(weights + time.time_ns().to_bytes(8)).hexdigest()[:8]
    stamp = now.strftime("%Y%m%d-%H%M%S")
    newest = max((path.name for path in models_dir.glob("*-*-*") if is_version(path.name)), default="")
    if newest[: len(stamp)] >= stamp:
        date, clock = newest.split("-")[:2]
        stamp = f"{date}-{int(clock) + 1:06}"
    return f"{stamp}-{digest}"
