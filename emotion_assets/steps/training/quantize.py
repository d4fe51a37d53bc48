"""Quantize the inference graph to 8-bit convolutions, which most processors run two to three times as fast."""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from emotion_assets.core.images import Pixels

MAX_ADDED_LOG_LOSS: Final = 0.01
"""On validation faces; a graph that loses more is not worth its speed."""

_NUM_FACES: Final = 512
_CHUNK: Final = 64


class _Faces(CalibrationDataReader):  # type: ignore[misc]
    """Calibration faces, which set the range of every activation."""

    def __init__(self, pixels: Pixels) -> None:
        self._feeds = ({"pixels": pixels[start : start + _CHUNK]} for start in range(0, len(pixels), _CHUNK))

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def quantize(graph: bytes, pixels: Pixels) -> bytes:
    """Return `graph` with 8-bit weights, scaled per channel, and 8-bit activations between its convolutions.

    The stem, the activation maps and the orientation network stay in float32: they cost little, and quantizing them
    would double the change of single predictions. Weights use seven of the eight bits: processors without 8-bit
    instructions add pairs of products in 16 bits, which would overflow and give other results. 512 of the faces, uint8
    (image, 64, 64), are used for calibration.
    """
    model = onnx.load_model_from_string(graph)
    chosen = np.random.default_rng(0).permutation(len(pixels))[:_NUM_FACES]
    root = logging.getLogger()
    level = root.level
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        root.setLevel(logging.ERROR)  # it recommends a preprocessing that the exporter has done
        try:
            quantize_static(
                model,
                path,
                _Faces(pixels[np.sort(chosen)]),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv", "Relu", "MaxPool", "AveragePool"],
                nodes_to_exclude=_find_float32_nodes(model),
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        finally:
            root.setLevel(level)
        return path.read_bytes()


def _find_float32_nodes(model: onnx.ModelProto) -> list[str]:
    """Name the convolutions of one input channel, those of one pixel, and all of the orientation network.

    Rounding must not change the orientation from one processor to another: it decides how the whole face is read.
    """
    shapes = {each.name: tuple(each.dims) for each in model.graph.initializer}
    found = [(node.name, node.input[1]) for node in model.graph.node if node.op_type == "Conv"]
    return [name for name, weights in found if weights.startswith("orientation.") or 1 in shapes[weights][1:3]]
