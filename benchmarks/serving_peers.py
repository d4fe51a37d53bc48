"""The servers that `benchmarks.serving` compares the service with, each started in its own process.

    a  FastAPI with torch, the model loaded once
    b  the same with the weights loaded for each request by `torch.load`
    c  bare Starlette with onnxruntime on the float32 graph
    c8 the same with the graph that the service runs: the service without BentoML, limits, log and metrics
    d  bare Starlette with a constant response: the cost of HTTP

All others decode with our `decode_image`, run the same network on one thread and return the five probabilities.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import uvicorn
from fastapi import FastAPI, File
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.images import decode_image


def as_response(probabilities: np.ndarray) -> dict[str, Any]:
    return {
        "emotion": EMOTIONS[int(probabilities.argmax())],
        "probabilities": dict(zip(EMOTIONS, probabilities.tolist(), strict=True)),
    }


async def read_upload(request: Request) -> bytes:
    async with request.form() as form:
        part = form["image"]
        assert isinstance(part, UploadFile)
        return await part.read()


def load_network(bundle_dir: Path, weights: Callable[[], dict[str, Any]]) -> Any:
    from emotion_assets.core.bundle import read_manifest
    from emotion_assets.steps.training.model import EmotionNet, InferenceModel

    manifest = read_manifest(bundle_dir)
    if manifest.configuration["corrects_orientation"]:
        raise SystemExit("This model corrects orientation, which (a) and (b) do not. Use one of preset `standard`.")
    network = EmotionNet(manifest.configuration["width"], num_blocks=manifest.configuration["num_blocks"])
    network.load_state_dict(weights())
    return InferenceModel(network.eval(), manifest.temperature).eval()


def fastapi_torch(bundle_dir: Path, *, loads_each_time: bool) -> Any:
    import torch
    from safetensors.torch import load_file

    from emotion_assets.core.bundle import WEIGHTS_NAME

    torch.set_num_threads(1)
    app = FastAPI()
    weights = load_file(bundle_dir / WEIGHTS_NAME)
    network = None if loads_each_time else load_network(bundle_dir, lambda: weights)
    # The format that `torch.load` reads, a pickle.
    folder = app.state.folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "weights.pt"
    torch.save(weights, path)

    @app.post("/predict")
    async def predict(image: Annotated[bytes, File()]) -> dict[str, Any]:
        pixels = torch.from_numpy(decode_image(image).pixels[None])
        with torch.inference_mode():
            outputs = (network or load_network(bundle_dir, lambda: torch.load(path)))(pixels)
        return as_response(outputs.probabilities[0].numpy())

    return app


def starlette_onnx(bundle_dir: Path, *, is_float32: bool) -> Any:
    import onnxruntime

    from emotion_assets.core.bundle import MODEL_NAME, read_manifest, runtime_model

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    name = MODEL_NAME if is_float32 else runtime_model(read_manifest(bundle_dir))
    session = onnxruntime.InferenceSession(bundle_dir / name, options, providers=["CPUExecutionProvider"])

    async def predict(request: Request) -> JSONResponse:
        pixels = decode_image(await read_upload(request)).pixels[None]
        return JSONResponse(as_response(session.run(["probabilities"], {"pixels": pixels})[0][0]))

    return Starlette(routes=[Route("/predict", predict, methods=["POST"])])


def respond_constantly(_: Path) -> Any:
    async def predict(request: Request) -> JSONResponse:
        await read_upload(request)
        return JSONResponse(as_response(np.full(5, 0.2)))

    return Starlette(routes=[Route("/predict", predict, methods=["POST"])])


def main() -> None:
    name, bundle_dir, port = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    os.environ["OMP_NUM_THREADS"] = "1"
    if name in "ab":
        app = fastapi_torch(bundle_dir, loads_each_time=name == "b")
    else:
        app = respond_constantly(bundle_dir) if name == "d" else starlette_onnx(bundle_dir, is_float32=name == "c")
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


if __name__ == "__main__":
    main()
