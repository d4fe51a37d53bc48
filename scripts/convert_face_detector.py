"""Make the service's face detector from the weights that the package `mtcnn` ships.

The three small networks of MTCNN (Zhang et al. 2016, "Joint face detection and alignment using multitask cascaded
convolutional networks") come with `mtcnn` under the MIT license, for TensorFlow. This writes them as ONNX graphs, so
that the service needs neither TensorFlow nor another package. Once per release of `mtcnn`; the result is committed.

    pip install mtcnn==1.0.0
    python scripts/convert_face_detector.py
"""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

TARGET = Path(__file__).parent.parent / "emotion_service" / "face_detector"
IR_VERSION, OPSET = 8, 17
SIZES = {"scores": 2, "offsets": 4, "landmarks": 10}

Arrays = list[npt.NDArray[np.float32]]


class Graph:
    """A sequence of ONNX nodes."""

    def __init__(self, weights: Arrays) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._weights = iter(weights)
        self.last = "pixels"
        # From gray bytes (image, row, column) to (image, 1, row, column) around 0.
        self.add("Cast", to=TensorProto.FLOAT)
        self.add("Sub", self.constant(np.array(127.5, np.float32)))
        self.add("Div", self.constant(np.array(128, np.float32)))
        self.add("Unsqueeze", self.constant(np.array([1], np.int64)))
        self._is_first = True

    def constant(self, array: npt.NDArray[Any]) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, op: str, *more: str, after: str = "", name: str = "", **attributes: Any) -> str:
        output = name or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, [after or self.last, *more], [output], **attributes))
        self.last = output
        return output

    def convolve(self, after: str = "", name: str = "") -> str:
        kernel, bias = next(self._weights), next(self._weights)
        if self._is_first:
            # A grayscale image has three equal channels, so one channel with the summed kernel gives the same result.
            kernel, self._is_first = kernel.sum(axis=2, keepdims=True), False
        return self.add(
            "Conv", self.constant(kernel.transpose(3, 2, 0, 1)), self.constant(bias), after=after, name=name
        )

    def prelu(self) -> None:
        slope = next(self._weights)
        self.add("PRelu", self.constant(slope.reshape(-1, 1, 1) if slope.ndim == 3 else slope))

    def pool(self, side: int, padding: str) -> None:
        self.add("MaxPool", kernel_shape=[side, side], strides=[2, 2], auto_pad=padding)

    def dense(self, after: str = "", name: str = "") -> str:
        matrix, bias = next(self._weights), next(self._weights)
        return self.add("Gemm", self.constant(matrix), self.constant(bias), after=after, name=name)

    def flatten(self) -> None:
        self.add("Transpose", perm=[0, 3, 2, 1])
        self.add("Flatten")

    def save(self, name: str, outputs: list[str], side: int | None) -> None:
        sides = [side, side] if side else ["row", "column"]
        pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["image", *sides])
        windows = [] if side else ["window_row", "window_column"]
        results = [
            helper.make_tensor_value_info(output, TensorProto.FLOAT, ["image", SIZES[output], *windows])
            for output in outputs
        ]
        graph = helper.make_graph(self.nodes, name, [pixels], results, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        TARGET.mkdir(exist_ok=True)
        onnx.save(model, TARGET / f"{name}.onnx")


def load_weights(name: str) -> Arrays:
    # The package itself would import TensorFlow.
    path = distribution("mtcnn").locate_file(f"mtcnn/assets/weights/{name}.lz4")
    arrays: Arrays = joblib.load(str(path))
    return arrays


def proposal() -> None:
    graph = Graph(load_weights("pnet"))
    graph.convolve()
    graph.prelu()
    graph.pool(2, "SAME_UPPER")
    for _ in range(2):
        graph.convolve()
        graph.prelu()
    shared = graph.last
    graph.convolve(after=shared, name="offsets")
    graph.convolve(after=shared)
    graph.add("Softmax", axis=1, name="scores")
    graph.save("proposal", ["scores", "offsets"], None)


def refinement() -> None:
    graph = Graph(load_weights("rnet"))
    for padding in ("SAME_UPPER", "VALID", ""):
        graph.convolve()
        graph.prelu()
        if padding:
            graph.pool(3, padding)
    _heads(graph, "refinement", 24, ["offsets"])


def output() -> None:
    graph = Graph(load_weights("onet"))
    for side, padding in ((3, "SAME_UPPER"), (3, "VALID"), (2, "SAME_UPPER"), (0, "")):
        graph.convolve()
        graph.prelu()
        if padding:
            graph.pool(side, padding)
    _heads(graph, "output", 48, ["offsets", "landmarks"])


def _heads(graph: Graph, name: str, side: int, regressions: list[str]) -> None:
    graph.flatten()
    graph.dense()
    graph.prelu()
    shared = graph.last
    for regression in regressions:
        graph.dense(after=shared, name=regression)
    graph.dense(after=shared)
    graph.add("Softmax", axis=1, name="scores")
    graph.save(name, ["scores", *regressions], side)


if __name__ == "__main__":
    proposal()
    refinement()
    output()
    print(f"Wrote {', '.join(sorted(path.name for path in TARGET.glob('*.onnx')))}")
