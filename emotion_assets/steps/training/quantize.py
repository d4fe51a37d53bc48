"""The served graph with 8-bit convolutions, which most processors run two to three times as fast as 32-bit ones."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from emotion_assets.core.images import Pixels

MAX_ADDED_LOG_LOSS: Final = 0.01
"""A graph that answers worse than that on validation faces is not worth its speed."""

_NUM_FACES: Final = 512
_CHUNK: Final = 64


class _Faces(CalibrationDataReader):  # type: ignore[misc]
    """Faces on which the range of every activation is measured."""

    def __init__(self, pixels: Pixels) -> None:
        self._chunks: Iterator[Pixels] = iter(
            [pixels[start : start + _CHUNK] for start in range(0, len(pixels), _CHUNK)]
        )

    def get_next(self) -> dict[str, Any] | None:
        chunk = next(self._chunks, None)
        return None if chunk is None else {"pixels": chunk}


def quantize(graph: bytes, pixels: Pixels) -> bytes:
    """Return `graph` with 8-bit weights, a scale for each filter, and 8-bit activations between its convolutions.

    The stem, the maps and the network of orientations stay as they are: they cost next to nothing, and halve what single
    answers move by.
    Weights take seven of the eight bits: processors without instructions for them add products in pairs to 16 bits,
    which would overflow, and one processor would answer otherwise than another.

    Args:
        graph: the ONNX model, float32.
        pixels: uint8 (image, 64, 64), faces that set the ranges; 512 of them are taken.
    """
    model = onnx.load_model_from_string(graph)
    chosen = np.random.default_rng(0).permutation(len(pixels))[:_NUM_FACES]
    root = logging.getLogger()
    level = root.level
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        root.setLevel(logging.ERROR)  # it advises a preparation that the exporter has done
        try:
            quantize_static(
                model,
                path,
                _Faces(pixels[np.sort(chosen)]),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv", "Relu", "MaxPool"],
                nodes_to_exclude=_kept_in_float32(model),
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        finally:
            root.setLevel(level)
        return path.read_bytes()


def _kept_in_float32(model: onnx.ModelProto) -> list[str]:
    """Name the convolutions that see one channel or one place at a time, and all of the network of orientations.

    A orientation decides how the whole face is read, so that rounding must not turn it on one processor and not on another.
    """
    shapes = {each.name: tuple(each.dims) for each in model.graph.initializer}
    found = [(node.name, node.input[1]) for node in model.graph.node if node.op_type == "Conv"]
    return [name for name, weights in found if weights.startswith("orientation.") or 1 in shapes[weights][1:3]]
