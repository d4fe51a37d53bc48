"""Predict calibrated probabilities from 64×64 gray pixels with onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from emotion_assets.core.bundle import Manifest, check_files, read_manifest, runtime_model
from emotion_assets.core.errors import BundleMismatchError
from emotion_assets.core.images import IMAGE_SIZE_PX, Pixels

Floats = npt.NDArray[np.float32]

GOLDEN_TOLERANCE: Final = 0.02
"""Rounding differs between processors by up to 0.007 with 8-bit convolutions; a wrong model differs by far more."""

_BATCH_SIZE: Final = 256


@dataclass(frozen=True, slots=True)
class Predictions:
    """The network's outputs for a batch of images."""

    probabilities: Floats
    """float32 (image, emotion), calibrated, each row sums to 1."""
    activation_maps: Floats | None = None
    """float32 (image, emotion, row, column), if requested: the evidence for each emotion by location."""


class Classifier:
    """A loaded bundle, which takes pixels without normalization."""

    def __init__(self, bundle_dir: Path, num_threads: int = 1) -> None:
        """Load the bundle in `bundle_dir` after checking its schema and hashes.

        Raises:
            BundleMismatchError: files are missing, altered, of another schema, or do not load.
        """
        self.manifest: Manifest = read_manifest(bundle_dir)
        check_files(bundle_dir, self.manifest)
        options = onnxruntime.SessionOptions()
        # Idle threads would spin.
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        path = bundle_dir / runtime_model(self.manifest)
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises its own unrelated classes
            raise BundleMismatchError(f"{path} does not load ({error}). Train again.") from error

    @property
    def version(self) -> str:
        """The version of the model."""
        return self.manifest.version

    @property
    def emotions(self) -> tuple[str, ...]:
        """The classes, in order."""
        return tuple(self.manifest.emotions)

    def predict(self, pixels: Pixels, *, with_maps: bool = False) -> Predictions:
        """Predict for uint8 pixels (image, 64, 64)."""
        names = ["probabilities", "activation_maps"] if with_maps else ["probabilities"]
        chunks = [
            self._session.run(names, {"pixels": pixels[start : start + _BATCH_SIZE]})
            for start in range(0, len(pixels), _BATCH_SIZE)
        ]
        whole = chunks[0] if len(chunks) == 1 else [np.concatenate(parts) for parts in zip(*chunks, strict=True)]
        return Predictions(*whole)

    def self_test(self) -> None:
        """Compare the prediction for the golden input with the one recorded at export.

        Raises:
            BundleMismatchError: they differ, so the model must not be served.
        """
        predicted = self.predict(golden_input()).probabilities[0]
        expected = np.array(self.manifest.golden_prediction, dtype=np.float32)
        if predicted.shape != expected.shape or not np.allclose(predicted, expected, atol=GOLDEN_TOLERANCE):
            raise BundleMismatchError(
                f"Model {self.version} predicts {predicted.tolist()} for the golden input, but {expected.tolist()} "
                "was recorded at export. Restore it or roll back to another version."
            )


def golden_input() -> Pixels:
    """Return the fixed image, uint8 (1, 64, 64), that models are tested with before they serve."""
    down, across = np.indices((IMAGE_SIZE_PX, IMAGE_SIZE_PX))
    return ((across * 3 + down * 5 + (across - 32) * (down - 32) // 4) % 256).astype(np.uint8)[None]
